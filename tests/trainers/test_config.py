"""What a user may write into a config: taken as written, or refused in one line that names the key. Nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from yacs.config import CfgNode

from coft.core.config_files import read_config
from coft.core.errors import UserError
from coft.core.experiment import flatten
from coft.core.settings import defaults, keys, load
from coft.engine.data_settings import Input
from dassl.config import get_cfg_default
from dassl.data.data_manager import build_data_loader
from dassl.data.transforms import INTERPOLATION_MODES, build_transform
from dassl.data.transforms.transforms import CHOICES
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.optim.lr_scheduler import SCHEDULES, WARMUPS
from dassl.optim.optimizer import OPTIMIZERS
from dassl.utils import set_random_seed
from train import make_parser
from trainers import extend_cfg
from trainers.config import make_cfg, settle_seed
from trainers.merging import Merger
from trainers.sections import GENERAL, SECTIONS, known_keys

BASE = ("--trainer", "CoFT", "--backbone", "RN50")
HUGE = 10**30
BAD: tuple[Any, ...] = (
    *(True, False, None, -1, 0, 1, 2, 3, 5, 2024, 2**32, HUGE, -HUGE, 10**5000),
    *(0.5, -0.5, 1.0, 1.5, 1e30, 1e300, math.nan, math.inf, -math.inf),
    *("", " ", "fast", "1", "0.1", "1e-4", "010", "1:30", "True", "None", "(1, 2)", "{'A': 1}", "'a' 'b'", "x" * 300),
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
# The other trainers' sections are like these. Files are slower to try, and end in the same checks.
IN_PAIRS = ("TRAINER.NAME", "TRAINER.COFTPLUS.", "TRAINER.UPL.", "TRAINER.FIXMATCH.")
IN_FILES = ("USE_CUDA", "OPTIM.", "INPUT.RR", "INPUT.TRANSFORMS", "DATALOADER.TRAIN_X.", "TRAINER.COFTPLUS.C")
# The config fills these in, or makes them fit the machine.
SETTLED = {f"INPUT.{key}" for key in ("SIZE", "PIXEL_MEAN", "PIXEL_STD", "INTERPOLATION")}
SETTLED |= {"SEED", "DATALOADER.NUM_WORKERS"}


@dataclass
class Item:
    impath: str
    label: int = 0
    domain: int = 0


def made(*argv: str) -> Any:
    return make_cfg(make_parser().parse_args([*BASE, *argv]), extend_cfg)


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
        if not name.startswith(IN_FILES if way is by_file else IN_PAIRS) and (way is by_file or "TRAINER." in name):
            continue
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
    assert (tried, len(accepted)) > ((7000, 500) if way is by_pair else (1900, 180))
    by_name = {name: [value for other, value in accepted if other == name] for name, _ in accepted}
    assert by_name["OPTIM.LR"] == [0, 1, 2, 3, 5, 2024, 2**32, HUGE, 0.5, 1.0, 1.5, 1e30, "1", "0.1", "1e-4"]
    assert by_name["DATALOADER.TRAIN_X.BATCH_SIZE"] == [1, 2, 3, 5, 2024, "1"]
    assert by_name["USE_CUDA"] == [True, False, "True"]
    assert by_name["INPUT.RRCROP_SCALE"] == [[0.5, 1.0]]
    assert by_name["INPUT.TRANSFORMS"] == [[], ["normalize"]]


def test_names_are_those_that_dassl_has() -> None:
    rules = {name: key.rule for name, key in known_keys(extended()).items()}
    assert sorted(rules["INPUT.TRANSFORMS"].choices) == sorted(CHOICES)
    assert set(rules["OPTIM.NAME"].choices) == set(OPTIMIZERS)
    assert set(rules["OPTIM.LR_SCHEDULER"].choices) == set(SCHEDULES)
    assert set(rules["OPTIM.WARMUP_TYPE"].choices) == set(WARMUPS)
    assert set(rules["INPUT.INTERPOLATION"].choices) == {"", *INTERPOLATION_MODES}


def test_defaults_are_dassls_but_for_those_of_the_backbone() -> None:
    dassl = flatten(get_cfg_default())
    declared = {name: key.default for section, cls in GENERAL.items() for name, key in keys(cls, section).items()}
    differing = {
        name for name, value in dassl.items() if name in declared and flatten({"": declared[name]})[""] != value
    }
    assert differing == {f"INPUT.{key}" for key in ("SIZE", "PIXEL_MEAN", "PIXEL_STD", "INTERPOLATION", "TRANSFORMS")}
    assert {name for name in dassl if not name.startswith("TRAINER.")} <= declared.keys()
    assert all(key.rule.help for key in known_keys(extended()).values() if key.name in declared)
    for cls in (*GENERAL.values(), *SECTIONS.values()):
        load(cls, defaults(cls))


IMAGE = Image.new("RGB", (256, 256), (10, 200, 90))


def build_from(section: str, cfg: Any) -> None:
    """Build what Dassl makes of a section, and use it once."""
    if section == "INPUT":
        for train in (True, False):
            build_transform(cfg, train, None if Input().transforms != cfg.INPUT.TRANSFORMS else CHOICES)(IMAGE)
    if section == "OPTIM":
        for change in ({}, *({"NAME": name} for name in OPTIMIZERS), *({"LR_SCHEDULER": name} for name in SCHEDULES)):
            options = cfg.OPTIM.clone()
            options.defrost()
            options.update(change)
            if options.LR_SCHEDULER == "multi_step" and min(options.STEPSIZE) < 1:
                continue
            weight = torch.nn.Parameter(torch.ones(2))
            weight.grad = torch.ones(2)
            optimizer = build_optimizer(torch.nn.ParameterList([weight]), options)
            schedule = build_lr_scheduler(optimizer, options)
            for _ in range(3):
                optimizer.step()
                schedule.step()
    if section == "DATALOADER":
        items = [Item(str(i % 4)) for i in range(12)]
        for part in ("TRAIN_X", "TRAIN_U", "TEST"):
            options = cfg.DATALOADER[part]
            sizes = (min(options.BATCH_SIZE, 12), options.get("N_DOMAIN", 0), options.get("N_INS", 1))
            if options.SAMPLER in ("RandomSampler", "SequentialSampler"):
                build_data_loader(cfg, options.SAMPLER, items, *sizes, tfm=lambda x: x, is_train=part != "TEST")


def test_what_is_accepted_can_be_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accepted, _ = audit(by_pair, tmp_path)
    built = 0
    by_name = {name: [value for other, value in accepted if other == name] for name, _ in accepted}
    for name, value in [(name, value) for name, values in by_name.items() for value in (*values[:2], *values[2:][-2:])]:
        section = name.split(".")[0]
        if section in ("INPUT", "OPTIM", "DATALOADER", "SEED") and name != "INPUT.SIZE":
            cfg = made("DATASET.NAME", "Digits", name, written(value))
            if section == "SEED":
                set_random_seed(cfg.SEED)
            if name not in SETTLED:
                node, leaf = node_and_leaf(cfg, name)
                assert same(value, node[leaf], True)
            build_from(section, cfg)
            built += 1
    assert built > 150


TOGETHER = [
    ("OPTIM.LR_SCHEDULER=multi_step", "OPTIM.STEPSIZE is (-1,); multi_step needs epochs of at least 1"),
    ("OPTIM.LR_SCHEDULER=multi_step OPTIM.STEPSIZE=[4,2]", "OPTIM.STEPSIZE is (4, 2); multi_step needs"),
    ("OPTIM.NAME=sgd OPTIM.SGD_NESTEROV=True OPTIM.MOMENTUM=0", "OPTIM.SGD_NESTEROV is True; it needs a MOMENTUM"),
    ("OPTIM.STAGED_LR=True", "OPTIM.STAGED_LR is True; it needs names of layers"),
    (
        "DATALOADER.TRAIN_X.SAMPLER=RandomClassSampler DATALOADER.TRAIN_X.N_INS=64",
        "BATCH_SIZE is 32; RandomClassSampler",
    ),
    ("DATALOADER.TRAIN_X.SAMPLER=RandomDomainSampler DATALOADER.TRAIN_X.N_DOMAIN=5", "BATCH_SIZE is 32; RandomDomain"),
    ("INPUT.TRANSFORMS=['gaussian_blur'] INPUT.GB_K=449", "INPUT.GB_K is 449; expected less than twice INPUT.SIZE"),
    ("TEST.EVALUATOR=Clasification", "TEST.EVALUATOR: unknown name 'Clasification'; did you mean 'Classification'?"),
    ("MODEL.INIT_WEIGHTS=nowhere", "MODEL.INIT_WEIGHTS is 'nowhere'; no such file"),
    ("OPTIM=5", "OPTIM is a section; set one of its keys, such as OPTIM.NAME"),
    ("optim.lr=5", "unknown config key 'optim.lr'; did you mean 'OPTIM.LR'?"),
    ("OPTIM.LR.X=5", "unknown config key 'OPTIM.LR.X'; did you mean 'OPTIM.LR'?"),
    ("INPUT.TRANSFORMS=random_flip", "INPUT.TRANSFORMS is 'random_flip'; expected a list of texts, such as ['a', 'b']"),
    ("INPUT.TRANSFORMS=['random_flipp']", "did you mean 'random_flip'?"),
]


@pytest.mark.parametrize(("pairs", "message"), TOGETHER)
def test_what_does_not_go_together_or_does_not_exist(pairs: str, message: str) -> None:
    words = [part for pair in pairs.split() for part in pair.split("=", 1)]
    with pytest.raises(UserError) as error:
        made("DATASET.NAME", "Digits", *words)
    assert message in error.value.line


def test_flags_are_named() -> None:
    for flag, value, message in (
        ("--seed", "-7", "--seed: SEED is -7; expected a number from -1 to 4294967295"),
        ("--transforms", "flip", "--transforms: INPUT.TRANSFORMS is ('flip',); expected some of random_flip"),
        ("--output-dir", " ", "--output-dir: OUTPUT_DIR is ' '; expected the path of a folder"),
    ):
        with pytest.raises(UserError) as error:
            made("--head", "none", flag, value)
        assert message in error.value.line


def test_without_a_seed_a_run_that_goes_on_has_its_own(tmp_path: Path) -> None:
    for name, seed in (("out", 7), ("earlier", 8)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(f"SEED: {seed}\n")
    for out, resume, seed in (("out", "earlier", 7), ("new", "earlier", 8), ("out", "", 7)):
        cfg = CfgNode(
            {"SEED": -1, "OUTPUT_DIR": str(tmp_path / out), "RESUME": str(tmp_path / resume) if resume else ""}
        )
        settle_seed(cfg)
        assert seed == cfg.SEED
    drawn = set()
    for _ in range(3):
        cfg = CfgNode({"SEED": -1, "OUTPUT_DIR": str(tmp_path / "new"), "RESUME": ""})
        settle_seed(cfg)
        drawn.add(cfg.SEED)
    assert len(drawn) == 3
