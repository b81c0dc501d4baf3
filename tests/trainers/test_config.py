"""What a user may write into a config: taken as written, or refused in one line that names the key. Nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from yacs.config import CfgNode

from coft.core.config_files import read_config
from coft.core.errors import UserError
from coft.core.run_settings import FREE_KEYS, RUN_KEYS, Root
from coft.core.settings import flatten, load
from coft.images.views import AUGMENTATIONS
from dassl.config import get_cfg_default
from dassl.data.transforms import INTERPOLATION_MODES
from dassl.data.transforms.transforms import CHOICES
from dassl.optim.lr_scheduler import SCHEDULES, WARMUPS
from dassl.optim.optimizer import OPTIMIZERS
from datasets.base import UNLABELED
from train import make_parser
from trainers import extend_cfg
from trainers.config import Merger, make_cfg, resolve_seed
from trainers.sections import SECTIONS, declared

DIGITS = Path(__file__).parents[2] / "configs" / "datasets" / "digits.yaml"
BASE = ("--trainer", "CoFT", "--backbone", "RN50")


def made(*argv: str) -> Any:
    return make_cfg(make_parser().parse_args([*BASE, *argv]), extend_cfg)


def extended() -> Any:
    cfg = get_cfg_default()
    extend_cfg(cfg)
    return cfg


def given(tmp_path: Path, text: str) -> Any:
    """The config that a file makes of the defaults."""
    path, merger = tmp_path / "given.yaml", Merger(extended())
    path.write_text(text, encoding="utf-8")
    merger.enter_tree(read_config("--config-file", str(path)), str(path))
    merger.check()
    return merger.cfg


TAKEN: list[tuple[str, str, Any]] = [
    ("OPTIM.LR", "1e-4", 1e-4),
    ("OPTIM.LR", "5", 5.0),
    ("DATALOADER.TRAIN_X.BATCH_SIZE", "64", 64),
    ("USE_CUDA", "False", False),
    ("INPUT.RRCROP_SCALE", "[0.5, 1.0]", (0.5, 1.0)),
    ("INPUT.TRANSFORMS", "['normalize']", ("normalize",)),
    ("OPTIM.STEPSIZE", "[20, 40]", (20, 40)),
]


@pytest.mark.parametrize(("name", "text", "value"), TAKEN)
def test_a_value_is_taken_as_written(name: str, text: str, value: Any, tmp_path: Path) -> None:
    merger = Merger(extended())
    merger.enter_pairs([name, text])
    for cfg in (merger.cfg, given(tmp_path, f"{name}: {text}\n")):
        taken = cfg
        for part in name.split("."):
            taken = taken[part]
        assert tuple(taken) == value if isinstance(value, tuple) else taken == value and type(taken) is type(value)


def test_names_are_those_that_there_are() -> None:
    assert sorted(RUN_KEYS["INPUT.TRANSFORMS"].choices) == sorted(CHOICES)
    for name, choices in (
        ("OPTIM.NAME", OPTIMIZERS),
        ("OPTIM.LR_SCHEDULER", SCHEDULES),
        ("OPTIM.WARMUP_TYPE", WARMUPS),
        ("INPUT.INTERPOLATION", ["", *INTERPOLATION_MODES]),
        ("INPUT.AUGMENT", AUGMENTATIONS),
        ("DATASET.UNLABELED", UNLABELED),
    ):
        assert set(RUN_KEYS[name].choices) == set(choices), name


def test_defaults_are_dassls_but_for_those_of_the_backbone() -> None:
    dassl, ours = flatten(get_cfg_default()), flatten({name: key.default for name, key in RUN_KEYS.items()})
    differing = {name for name, value in dassl.items() if name in ours and ours[name] != value}
    assert differing == {f"INPUT.{key}" for key in ("SIZE", "PIXEL_MEAN", "PIXEL_STD", "INTERPOLATION", "TRANSFORMS")}
    assert load(Root, ours) == Root()


def test_what_is_declared_says_what_it_does_and_only_keys_of_a_run_are_free() -> None:
    assert len(SECTIONS) > 10 and all(key.help for key in declared().values())
    assert {name for name, key in declared().items() if key.free} == FREE_KEYS > {"OUTPUT_DIR", "TRAIN.PHASE1_FROM"}


def test_the_type_of_a_key_says_how_a_file_is_read(tmp_path: Path) -> None:
    cfg = given(
        tmp_path,
        "USE_CUDA: false\nOPTIM:\n  LR: 1e-4\n  STEPSIZE: (5,)\nOPTIM.GAMMA: .5\nDATALOADER:\n"
        "DATASET: {CLASSES: 010, NAME: no, SOURCE_DOMAINS: [1, '2']}\nINPUT: {SIZE: [32, '32'], TRANSFORMS: []}\n"
        "TRAINER: {FIXMATCH: {STRONG_TRANSFORMS: [a, 1]}}\n",
    )
    assert (cfg.USE_CUDA, cfg.OPTIM.LR, cfg.OPTIM.STEPSIZE, cfg.OPTIM.GAMMA) == (False, 1e-4, (5,), 0.5)
    assert (cfg.DATASET.CLASSES, cfg.DATASET.NAME, cfg.DATASET.SOURCE_DOMAINS) == ("010", "no", ("1", "2"))
    assert (cfg.INPUT.SIZE, cfg.INPUT.TRANSFORMS) == ((32, 32), ())
    assert cfg.TRAINER.FIXMATCH.STRONG_TRANSFORMS == ("a", 1)


TOGETHER = [
    ("OPTIM.LR_SCHEDULER=multi_step OPTIM.STEPSIZE=[4,2]", "OPTIM.STEPSIZE is (4, 2); multi_step needs"),
    ("OPTIM.NAME=sgd OPTIM.SGD_NESTEROV=True OPTIM.MOMENTUM=0", "OPTIM.SGD_NESTEROV is True; it needs a MOMENTUM"),
    ("OPTIM.STAGED_LR=True", "OPTIM.STAGED_LR is True; it needs"),
    ("DATALOADER.TRAIN_X.SAMPLER=RandomClassSampler DATALOADER.TRAIN_X.N_INS=64", "BATCH_SIZE is 32; RandomClass"),
    ("DATALOADER.TRAIN_X.SAMPLER=RandomDomainSampler DATALOADER.TRAIN_X.N_DOMAIN=5", "BATCH_SIZE is 32; RandomDomain"),
    ("INPUT.TRANSFORMS=['gaussian_blur'] INPUT.GB_K=449", "INPUT.GB_K is 449; expected less than twice INPUT.SIZE"),
    ("TEST.EVALUATOR=Clasification", "TEST.EVALUATOR: unknown name"),
    ("MODEL.INIT_WEIGHTS=nowhere", "MODEL.INIT_WEIGHTS is 'nowhere'; no such file"),
    ("OPTIM=5", "OPTIM is a section"),
    ("OPTIM.LR.X=5", "unknown config key 'OPTIM.LR.X'; did you mean 'OPTIM.LR'?"),
    ("OPTIM.STEPSIZE=[]", "OPTIM.STEPSIZE is ()"),
]


@pytest.mark.parametrize(("pairs", "message"), TOGETHER)
def test_what_does_not_go_together_or_does_not_exist(pairs: str, message: str) -> None:
    words = [part for pair in pairs.split() for part in pair.split("=", 1)]
    with pytest.raises(UserError) as error:
        made("DATASET.NAME", "Digits", *words)
    assert message in error.value.line


def test_flags_are_named() -> None:
    for flag, value, message in (
        ("--seed", "-7", "--seed: SEED is -7; expected a whole number from -1 to 4294967295"),
        ("--transforms", "flip", "--transforms: INPUT.TRANSFORMS is ['flip']; expected a list of some of"),
        ("--output-dir", " ", "--output-dir: OUTPUT_DIR is ' '; expected the path of a folder"),
    ):
        with pytest.raises(UserError) as error:
            made("--dataset-config-file", str(DIGITS), "--head", "none", flag, value)
        assert message in error.value.line


def test_without_a_seed_a_run_that_goes_on_has_its_own(tmp_path: Path) -> None:
    for name, seed in (("out", 7), ("earlier", 8)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(f"SEED: {seed}\n")
    for out, resume, seed in (("out", "earlier", 7), ("new", "earlier", 8), ("out", "", 7)):
        cfg = CfgNode(
            {"SEED": -1, "OUTPUT_DIR": str(tmp_path / out), "RESUME": str(tmp_path / resume) if resume else ""}
        )
        resolve_seed(cfg)
        assert seed == cfg.SEED
    drawn = set()
    for _ in range(3):
        cfg = CfgNode({"SEED": -1, "OUTPUT_DIR": str(tmp_path / "new"), "RESUME": ""})
        resolve_seed(cfg)
        drawn.add(cfg.SEED)
    assert len(drawn) == 3
