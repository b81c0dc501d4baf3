"""What a user may write into a config: taken as written, or refused in one line that names the key. Nothing else."""

from __future__ import annotations

import math
import os
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from coft.images.views import AUGMENTATIONS
from coft.method.coft import CoFTSettings
from coft.method.coft_plus import CoFTPlusSettings
from coft.runtime.errors import UserError
from coft.runtime.experiment import flatten
from coft.runtime.settings import defaults, keys
from dassl.config import get_cfg_default
from dassl.data.data_manager import build_data_loader
from dassl.data.transforms import build_transform
from dassl.data.transforms.transforms import CHOICES
from dassl.optim import build_lr_scheduler, build_optimizer
from train import make_parser
from trainers import extend_cfg
from trainers.config import make_cfg
from trainers.config_files import read_config
from trainers.data_settings import Input
from trainers.merging import Merger
from trainers.sections import GENERAL, SECTIONS, known_keys

BASE = ("--trainer", "CoFT", "--backbone", "RN50", "DATASET.NAME", "Digits")
HUGE = 10**30
BAD: tuple[Any, ...] = (
    *(True, False, None, -1, 0, 1, 2, 3, 5, 2024, 2**32, HUGE, -HUGE, 10**5000),
    *(0.5, -0.5, 1.0, 1.5, 1e30, 1e300, math.nan, math.inf, -math.inf),
    *("", " ", "fast", "1", "0.1", "1e-4", "010", "1:30", "True", "None", "(1, 2)", "{'A': 1}", "'a' 'b'", "x" * 5000),
    *("a\nb", "é", "[", "__import__('os')", "1 if", "-", "sgdd", "RandomSampl"),
    *(
        [],
        [1],
        [1, 2],
        [2, 1],
        [0.5, 1.0],
        [1.0, 0.5],
        [0, 0, 0],
        [1, 1, 1],
        [math.nan] * 3,
        ["a"],
        ["normalize"],
        [None],
    ),
    *([[1]], [True], ["1", 2], {}, {"A": 1}),
)
# The config fills these in, or makes them fit the machine.
SETTLED = {"INPUT.SIZE", "INPUT.PIXEL_MEAN", "INPUT.PIXEL_STD", "SEED", "DATALOADER.NUM_WORKERS"}


@pytest.fixture(scope="module", autouse=True)
def _declared_trainers() -> Iterator[None]:
    """The real settings of CoFT and CoFT+, as if they had been moved over."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SECTIONS, "COFT", CoFTSettings)
        patch.setitem(SECTIONS, "COFTPLUS", CoFTPlusSettings)
        yield


def made(*argv: str) -> Any:
    return make_cfg(make_parser().parse_args([*BASE[:4], *argv]), extend_cfg)


def extended() -> Any:
    cfg = get_cfg_default()
    extend_cfg(cfg)
    return cfg


def nested(name: str, value: Any) -> dict[str, Any]:
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def same(value: Any, taken: Any, by_pair: bool = False) -> bool:
    """Whether what was taken is what was written; a text for what is no text is what Python reads in it."""
    if isinstance(value, (list, tuple)) and isinstance(taken, (list, tuple)):
        return len(value) == len(taken) and all(map(same, value, taken))
    if isinstance(taken, str):
        return taken == value or (by_pair and taken == written(value))
    if isinstance(value, str):
        return repr(taken) == value or float(taken) == float(value)
    return (type(value) is bool) == (type(taken) is bool) and (value == taken or float(value) == taken)


def written(value: Any) -> str:
    """A value as one writes it; large numbers as Python can, however many digits they have."""
    return value if isinstance(value, str) else hex(value) if type(value) is int and abs(value) > 2**40 else repr(value)


def by_pair(name: str, value: Any, folder: Path) -> Callable[[Merger], None]:
    return lambda merger: merger.enter_pairs([name, written(value)])


def by_file(name: str, value: Any, folder: Path) -> Callable[[Merger], None]:
    path = folder / "given.yaml"
    large = type(value) is int and abs(value) > 2**40
    text = yaml.safe_dump(nested(name, "here" if large else value))
    path.write_text(text.replace("here", written(value)) if large else text, encoding="utf-8")
    return lambda merger: merger.enter_tree(read_config("--config-file", str(path)), str(path))


def node_and_leaf(cfg: Any, name: str) -> tuple[Any, str]:
    *sections, leaf = name.split(".")
    for section in sections:
        cfg = cfg[section]
    return cfg, leaf


def audit(way: Callable[..., Any], folder: Path) -> tuple[list[tuple[str, Any]], int]:
    """Try every bad value for every key; returns what was accepted, and how many were tried."""
    cfg = extended()
    merger, accepted, tried = Merger(cfg), [], 0
    for name in flatten(cfg):
        node, leaf = node_and_leaf(cfg, name)
        default = node[leaf]
        for value in BAD:
            tried += 1
            try:
                way(name, value, folder)(merger)
                merger.check()
            except UserError as error:
                assert name in error.line and "\n" not in str(error) and len(str(error)) < 600, error
                if way is by_file:
                    assert error.line.startswith(f"{folder / 'given.yaml'}: "), error
            else:
                assert same(value, node[leaf], way is by_pair), (name, value, node[leaf])
                accepted.append((name, value))
            node[leaf] = default
    return accepted, tried


@pytest.mark.parametrize("way", [by_pair, by_file])
def test_every_bad_value_is_refused_or_taken_as_written(way: Callable[..., Any], tmp_path: Path) -> None:
    accepted, tried = audit(way, tmp_path)
    assert tried > 8000 and len(accepted) > 500
    by_name = {name: [value for other, value in accepted if other == name] for name, _ in accepted}
    assert by_name["OPTIM.LR"] == [0, 1, 2, 3, 5, 2024, 2**32, HUGE, 0.5, 1.0, 1.5, 1e30, "1", "0.1", "1e-4"]
    assert by_name["DATALOADER.TRAIN_X.BATCH_SIZE"] == [1, 2, 3, 5, 2024, "1"]
    assert by_name["USE_CUDA"] == [True, False, "True"]
    assert by_name["INPUT.RRCROP_SCALE"] == [[0.5, 1.0]]
    assert by_name["INPUT.TRANSFORMS"] == [[], ["normalize"]]
