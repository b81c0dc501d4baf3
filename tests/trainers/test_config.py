"""A value of a config is taken as written, or refused in one line that names the key."""

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


def config_of(*argv: str) -> Any:
    return make_cfg(make_parser().parse_args([*BASE, *argv]), extend_cfg)


def default_config() -> Any:
    cfg = get_cfg_default()
    extend_cfg(cfg)
    return cfg


def config_from_file(tmp_path: Path, text: str) -> Any:
    """Defaults merged with a file."""
    path, merger = tmp_path / "a.yaml", Merger(default_config())
    path.write_text(text, encoding="utf-8")
    merger.enter_tree(read_config("--config-file", str(path)), str(path))
    merger.check()
    return merger.cfg


VALUES: list[tuple[str, str, Any]] = [
    ("OPTIM.LR", "1e-4", 1e-4),
    ("OPTIM.LR", "5", 5.0),
    ("DATALOADER.TRAIN_X.BATCH_SIZE", "64", 64),
    ("USE_CUDA", "False", False),
    ("INPUT.RRCROP_SCALE", "[0.5, 1.0]", (0.5, 1.0)),
    ("INPUT.TRANSFORMS", "['normalize']", ("normalize",)),
    ("OPTIM.STEPSIZE", "[20, 40]", (20, 40)),
]


@pytest.mark.parametrize(("name", "text", "value"), VALUES)
def test_a_value_has_the_type_of_its_key(name: str, text: str, value: Any, tmp_path: Path) -> None:
    merger = Merger(default_config())
    merger.enter_pairs([name, text])
    for cfg in (merger.cfg, config_from_file(tmp_path, f"{name}: {text}\n")):
        merged = cfg
        for part in name.split("."):
            merged = merged[part]
        assert tuple(merged) == value if isinstance(value, tuple) else merged == value and type(merged) is type(value)


def test_choices_are_those_of_the_registries() -> None:
    assert set(RUN_KEYS["INPUT.TRANSFORMS"].choices) < set(CHOICES)
    for name, choices in (
        ("OPTIM.NAME", OPTIMIZERS),
        ("OPTIM.LR_SCHEDULER", SCHEDULES),
        ("OPTIM.WARMUP_TYPE", WARMUPS),
        ("INPUT.INTERPOLATION", ["", *INTERPOLATION_MODES]),
        ("INPUT.AUGMENT", AUGMENTATIONS),
        ("DATASET.UNLABELED", UNLABELED),
    ):
        assert set(RUN_KEYS[name].choices) == set(choices), name


def test_defaults_differ_from_dassl_only_in_the_inputs() -> None:
    dassl, defaults = flatten(get_cfg_default()), flatten({name: key.default for name, key in RUN_KEYS.items()})
    differing = {name for name, value in dassl.items() if name in defaults and defaults[name] != value}
    assert differing == {f"INPUT.{key}" for key in ("SIZE", "PIXEL_MEAN", "PIXEL_STD", "INTERPOLATION", "TRANSFORMS")}
    assert load(Root, defaults) == Root()


def test_every_key_has_a_help_text_and_only_run_keys_are_free() -> None:
    assert len(SECTIONS) > 10 and all(key.help for key in declared().values())
    assert {name for name, key in declared().items() if key.free} == FREE_KEYS > {"OUTPUT_DIR", "TRAIN.PHASE1_FROM"}


def test_values_of_a_file_are_read_by_the_type_of_their_key(tmp_path: Path) -> None:
    cfg = config_from_file(
        tmp_path,
        "USE_CUDA: false\nOPTIM:\n  LR: 1e-4\n  STEPSIZE: (5,)\nOPTIM.GAMMA: .5\nDATALOADER:\n"
        "DATASET: {CLASSES: 010, NAME: no, SOURCE_DOMAINS: [1, '2']}\nINPUT: {SIZE: [32, '32'], TRANSFORMS: []}\n"
        "TRAINER: {FIXMATCH: {STRONG_TRANSFORMS: [a, 1]}}\n",
    )
    assert (cfg.USE_CUDA, cfg.OPTIM.LR, cfg.OPTIM.STEPSIZE, cfg.OPTIM.GAMMA) == (False, 1e-4, (5,), 0.5)
    assert (cfg.DATASET.CLASSES, cfg.DATASET.NAME, cfg.DATASET.SOURCE_DOMAINS) == ("010", "no", ("1", "2"))
    assert (cfg.INPUT.SIZE, cfg.INPUT.TRANSFORMS) == ((32, 32), ())
    assert cfg.TRAINER.FIXMATCH.STRONG_TRANSFORMS == ("a", 1)


CONFLICTS = [
    ("OPTIM.LR_SCHEDULER=multi_step OPTIM.STEPSIZE=[4,2]", "OPTIM.STEPSIZE is (4, 2); multi_step needs"),
    ("OPTIM.NAME=sgd OPTIM.SGD_NESTEROV=True OPTIM.MOMENTUM=0", "OPTIM.SGD_NESTEROV is True; it needs a MOMENTUM"),
    ("OPTIM.STAGED_LR=True", "OPTIM.STAGED_LR is True; expected False"),
    ("DATALOADER.TRAIN_X.SAMPLER=RandomClassSampler", "DATALOADER.TRAIN_X.SAMPLER is 'RandomClassSampler'; expected"),
    ("INPUT.TRANSFORMS=['gaussian_blur']", "INPUT.TRANSFORMS is ['gaussian_blur']; expected"),
    ("TEST.EVALUATOR=Clasification", "TEST.EVALUATOR: unknown name"),
    ("MODEL.INIT_WEIGHTS=nowhere", "MODEL.INIT_WEIGHTS is 'nowhere'; no such file"),
    ("OPTIM=5", "OPTIM is a section"),
    ("OPTIM.LR.X=5", "unknown config key 'OPTIM.LR.X'; did you mean 'OPTIM.LR'?"),
    ("OPTIM.STEPSIZE=[]", "OPTIM.STEPSIZE is ()"),
    ("MICRO_BATCH=5", "unknown config key 'MICRO_BATCH'; did you mean 'TRAIN.MICRO_BATCH'?"),
]


@pytest.mark.parametrize(("pairs", "message"), CONFLICTS)
def test_conflicting_and_unknown_settings_are_refused(pairs: str, message: str) -> None:
    options = [part for pair in pairs.split() for part in pair.split("=", 1)]
    with pytest.raises(UserError) as error:
        config_of("DATASET.NAME", "Digits", *options)
    assert message in error.value.line


def test_messages_name_the_flag() -> None:
    for flag, value, message in (
        ("--seed", "-7", "--seed: SEED is -7; expected a whole number from -1 to 4294967295"),
        ("--transforms", "flip", "--transforms: INPUT.TRANSFORMS is ['flip']; expected a list of some of"),
        ("--output-dir", " ", "--output-dir: OUTPUT_DIR is ' '; expected the path of a folder"),
    ):
        with pytest.raises(UserError) as error:
            config_of("--dataset-config-file", str(DIGITS), "--head", "none", flag, value)
        assert message in error.value.line


def test_a_resumed_run_without_a_seed_keeps_its_seed(tmp_path: Path) -> None:
    for name, seed in (("out", 7), ("earlier", 8)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(f"SEED: {seed}\n")
    for out, resume, seed in (("out", "earlier", 7), ("new", "earlier", 8), ("out", "", 7)):
        cfg = CfgNode(
            {"SEED": -1, "OUTPUT_DIR": str(tmp_path / out), "RESUME": str(tmp_path / resume) if resume else ""}
        )
        resolve_seed(cfg)
        assert seed == cfg.SEED
    seeds = set()
    for _ in range(3):
        cfg = CfgNode({"SEED": -1, "OUTPUT_DIR": str(tmp_path / "new"), "RESUME": ""})
        resolve_seed(cfg)
        seeds.add(cfg.SEED)
    assert len(seeds) == 3


def test_a_suggested_key_is_one_of_the_trainer(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        config_of("DATASET.NAME", "Digits", "EPOCHS", "5")
    assert error.value.line.endswith("did you mean 'TRAINER.COFT.PHASE1.EPOCHS' or 'TRAINER.COFT.PHASE2.EPOCHS'?")
    for name, meant in (("TRAINER.COFT.PRIOR_TAUU", "TRAINER.COFT.PRIOR_TAU"), ("TRAINER.NAM", "TRAINER.NAME")):
        (tmp_path / "a.yaml").write_text(f"{name}: 1\n")
        with pytest.raises(UserError) as error:
            config_of("--config-file", str(tmp_path / "a.yaml"))
        assert error.value.line.endswith(f"did you mean {meant!r}?")
