"""Rows of a comparison, each a trainer with settings, and lists of changes to a method (ablations)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trainers
from coft.backbones.load import architecture
from coft.core.errors import UserError, did_you_mean
from coft.core.experiment import flatten
from coft.core.untrusted import read_text
from coft.core.yaml_text import parse_yaml
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY
from scripts.launch import CONFIGS

Settings = tuple[tuple[str, str], ...]
READS_LABELS = {  # whether a trainer reads labels of training images; in the order of tables
    **dict.fromkeys(("ZeroshotCLIP", "TrainingFree", "UPL", "GRIP", "CPL", "LaFTer", "DeFT"), False),
    **dict.fromkeys(("SelfTraining", "MUST", "DPA", "CoFT", "CoFTPlus"), False),
    **dict.fromkeys(("CoOp", "Supervised"), True),
}
BY_SHOTS = {"CoOp"}  # trainers with a row for each number of labelled images
UNSEEDED = {"ZeroshotCLIP", "ZeroshotCLIP2"}  # deterministic trainers


@dataclass(frozen=True)
class Method:
    """A row of a comparison.

    Attributes:
        name: Name in the tables.
        trainer: Name of the trainer.
        settings: Keys and values, in addition to those of the trainer's config file.
        shots: Number of labelled images per class; None for trainers without such a number.
        group: For a change to a method: kind of change, by which changes can be chosen.
        measure: Accuracy that counts: "both", of both peers; "single", the mean of the single peers; "after Phase I".
        only: Kind of backbones that it applies to: any, vit, resnet.
        version: Version of a row of the benchmark. To be increased when its settings change meaning, which invalidates
            listed results.
    """

    name: str
    trainer: str
    settings: Settings = ()
    shots: int | None = None
    group: str = ""
    measure: str = "both"
    only: str = "any"
    version: int = 1

    @property
    def seeded(self) -> bool:
        """Whether it is run with each seed, and not only with the first one."""
        return self.trainer not in UNSEEDED

    def fits(self, backbone: str) -> bool:
        """Return whether it applies to a backbone."""
        return self.only == "any" or architecture(backbone).is_vit == (self.only == "vit")


DEFAULT_VARIANTS = (
    Method("prior correction", "TrainingFree", (("TRAINER.TRAININGFREE.RULE", "prior"),)),
    Method("optimal transport", "TrainingFree", (("TRAINER.TRAININGFREE.RULE", "transport"),)),
    Method("TransCLIP", "TrainingFree", (("TRAINER.TRAININGFREE.RULE", "transclip"),)),
    Method("UPL x 2", "UPL", (("TRAINER.UPL.ENSEMBLE", "2"),)),
)


def method_name(trainer: str, shots: int) -> str:
    """Return the name in tables of a trainer with a number of labelled images per class; 0 or less stands for none."""
    return trainer + (f", {shots} shot{'s' * (shots > 1)}" if shots > 0 else "")


def runnable() -> list[str]:
    """Return the registered trainers that have a folder of configs."""
    return [name for name in TRAINER_REGISTRY.registered_names() if (CONFIGS / "trainers" / name).is_dir()]


def config_keys() -> set[str]:
    """Return the config keys of Dassl and of all trainers."""
    cfg = get_cfg_default()
    trainers.extend_cfg(cfg)
    return set(flatten(cfg))


def pairs_of(settings: Mapping[str, Any]) -> Settings:
    """Convert settings of a YAML file to pairs of key and text."""
    return tuple((key, str(value)) for key, value in settings.items())


# ---------------------------------------------------------------- rows


def choose_methods(names: Sequence[str], shots: Sequence[int]) -> list[Method]:
    """Return the rows of a comparison, without duplicates.

    Args:
        names: Names of trainers; without any, the default trainers, each with its default variants.
        shots: Numbers of labelled images per class, for trainers in `BY_SHOTS`.

    Raises:
        UserError: If there is no such trainer, or a number of images is below 1.
    """
    if few := [count for count in shots if count < 1]:
        raise UserError(f"--shots {few[0]}: expected at least 1 labelled image of each class")
    for name in names:
        if name in TRAINER_REGISTRY.registered_names() and name not in runnable():
            raise UserError(f"--trainers {name}: there is no folder configs/trainers/{name}; make one, it may be empty")
        if name not in runnable():
            raise UserError(f"--trainers: unknown trainer {name!r}; {did_you_mean(name, runnable())}")
    methods: list[Method] = []
    for trainer in names or default_trainers():
        counts = shots if trainer in BY_SHOTS else [None]
        methods += [Method(method_name(trainer, count or 0), trainer, shots=count) for count in counts]
        methods += [] if names else [variant for variant in DEFAULT_VARIANTS if variant.trainer == trainer]
    return list(dict.fromkeys(methods))


def default_trainers() -> list[str]:
    """Return the trainers that are compared by default: those of `READS_LABELS`, then all others."""
    names = runnable()
    ordered = [name for name in READS_LABELS if name in names]
    return [*ordered, *(name for name in names if name not in READS_LABELS)]


# ---------------------------------------------------------------- changes to a method

FULL = "full"
ABLATIONS = {
    "CoFT": CONFIGS / "ablations.yaml",
    "CoFTPlus": CONFIGS / "ablations_plus.yaml",
}


def load_ablations(path: Path) -> list[Method]:
    """Read configs/ablations.yaml or another file of this format. The unchanged method comes first."""
    content = parse_yaml(read_text(path))
    trainer = content["trainer"]
    ablations = [Method(FULL, trainer, group=FULL)]
    for entry in content["ablations"]:
        ablations.append(Method(**{**entry, "trainer": trainer, "settings": pairs_of(entry.get("settings", {}))}))
    return ablations


def choose_ablations(ablations: Sequence[Method], groups: Collection[str], names: Collection[str] = ()) -> list[Method]:
    """Return the unchanged method and the ablations of some groups or names; all if no group or name is given.

    Raises:
        UserError: If there is no such group or name.
    """
    _, *changes = ablations
    for what, wanted, choices in (
        ("--groups: unknown group", groups, dict.fromkeys(method.group for method in changes)),
        ("--row: unknown row", names, dict.fromkeys(method.name for method in changes)),
    ):
        for name in wanted:
            if name not in choices:
                raise UserError(f"{what} {name!r}; {did_you_mean(name, choices)}")
    if not groups and not names:
        return list(ablations)
    return [method for method in ablations if method.group in {FULL, *groups} or method.name in names]
