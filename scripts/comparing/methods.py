"""Rows of a comparison, each a trainer with settings, and lists of changes to a method (ablations)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trainers
from coft.backbones.load import architecture
from coft.core.config_files import read_config
from coft.core.errors import UserError, did_you_mean
from coft.core.experiment import flatten
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY
from scripts.launch import CONFIGS

Settings = tuple[tuple[str, str], ...]
READS_LABELS = {  # whether a trainer reads labels of training images; in the order of tables
    **dict.fromkeys(("ZeroshotCLIP", "NormAdaptation", "TrainingFree", "UPL", "GRIP", "CPL", "LaFTer", "DeFT"), False),
    **dict.fromkeys(("SelfTraining", "MUST", "DPA", "CoFT", "CoFTPlus"), False),
    **dict.fromkeys(("CoOp", "Supervised"), True),
}
BY_SHOTS = {"CoOp"}  # trainers with a row for each number of labelled images
UNSEEDED = {"ZeroshotCLIP", "ZeroshotCLIP2", "NormAdaptation"}  # deterministic trainers


@dataclass(frozen=True)
class Method:
    """A row of a comparison.

    Attributes:
        name: Name in the tables.
        trainer: Name of the trainer.
        settings: Keys and values, in addition to those of the trainer's config file.
        shots: Number of labelled images per class; None for trainers without such a number.
        group: For a change to a method: kind of change, by which changes can be chosen.
        measure: Accuracy that counts, one of `MEASURES`: of both peers, mean of the single peers, or after Phase I.
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


def known_keys() -> set[str]:
    """Return the config keys of Dassl and of all trainers."""
    cfg = get_cfg_default()
    trainers.extend_cfg(cfg)
    return set(flatten(cfg))


def pairs_of(settings: Mapping[str, Any]) -> Settings:
    """Convert settings of a YAML file to pairs of key and text."""
    return tuple((key, str(value)) for key, value in settings.items())


# ---------------------------------------------------------------- rows


def choose_methods(names: Sequence[str], shots: Sequence[int], variants: Iterable[Method] = ()) -> list[Method]:
    """Return the rows of a comparison, without duplicates.

    Args:
        names: Names of trainers; without any, the default trainers, each with its default variants.
        shots: Numbers of labelled images per class, for trainers in `BY_SHOTS`.
        variants: Further rows.

    Raises:
        UserError: If there is no such trainer, a number of images is below 1, or different rows have the same name.
    """
    if few := [count for count in shots if count < 1]:
        raise UserError(f"--shots {few[0]}: expected at least 1 labelled image of each class")
    for name in names:
        check_trainer(name, "--trainers")
    methods: list[Method] = []
    for trainer in names or default_trainers():
        counts = shots if trainer in BY_SHOTS else [None]
        methods += [Method(method_name(trainer, count or 0), trainer, shots=count) for count in counts]
        methods += [] if names else [variant for variant in DEFAULT_VARIANTS if variant.trainer == trainer]
    unique = list(dict.fromkeys([*methods, *variants]))
    for name, count in Counter(method.name for method in unique).items():
        if count > 1:
            raise UserError(f"--variant: {count} rows would be named {name!r}; give each a name of its own")
    return unique


def check_trainer(name: str, named_by: str) -> None:
    """Check that a trainer can be run.

    Raises:
        UserError: If it cannot; the message has `named_by`, the flag or file, and similar names.
    """
    if name not in runnable():
        raise UserError(f"{named_by}: unknown trainer {name!r}; {did_you_mean(name, runnable())}")


def default_trainers() -> list[str]:
    """Return the trainers that are compared by default: those of `READS_LABELS`, then all others."""
    names = runnable()
    ordered = [name for name in READS_LABELS if name in names]
    return [*ordered, *(name for name in names if name not in READS_LABELS)]


def parse_variant(text: str) -> Method:
    """Parse `NAME:TRAINER:KEY=VALUE,KEY=VALUE`; values may contain commas and colons.

    Raises:
        UserError: If the text has another format, or there is no such trainer.
    """
    name, _, rest = text.partition(":")
    trainer, _, pairs = rest.partition(":")
    settings = tuple(pair.partition("=")[::2] for pair in re.split(r",(?=[A-Z0-9_.]+=)", pairs))
    if not name or not all(key and value for key, value in settings):
        raise UserError(f"--variant {text!r}: expected NAME:TRAINER:KEY=VALUE,KEY=VALUE")
    check_trainer(trainer, f"--variant {text!r}")
    return Method(name, trainer, settings)


# ---------------------------------------------------------------- changes to a method

FULL = "full"
MEASURES = ("both", "single", "after Phase I")
FIELDS = {"name", "group", "settings", "measure", "only"}
ONLY = ("any", "vit", "resnet")
ABLATIONS = {
    "CoFT": CONFIGS / "ablations.yaml",
    "CoFTPlus": CONFIGS / "ablations_plus.yaml",
}


def load_ablations(path: Path) -> list[Method]:
    """Read a list of ablations in the format of configs/ablations.yaml. The unchanged method comes first.

    Raises:
        UserError: If the file has another format. Keys and values of settings are checked when runs are planned.
    """
    content = read_config("--ablations", str(path))
    trainer, entries = content.get("trainer"), content.get("ablations")
    if not isinstance(trainer, str) or not isinstance(entries, list):
        raise UserError(f"{path}: expected the keys trainer, a name, and ablations, a list of changes; mend it")
    check_trainer(trainer, str(path))
    ablations = [Method(FULL, trainer, group=FULL), *(_read(path, trainer, entry) for entry in entries)]
    for name, count in Counter(method.name for method in ablations).items():
        if count > 1:
            raise UserError(f"{path}: {count} ablations are called {name!r}; rename one")
    return ablations


def _read(path: Path, trainer: str, entry: Any) -> Method:
    if not isinstance(entry, dict) or not {"name", "group"} <= entry.keys() <= FIELDS:
        fields = ", ".join(sorted(FIELDS))
        raise UserError(f"{path}: {entry!r} should have name, group, and of {fields} what it needs; mend it")
    settings, measure, only = entry.get("settings", {}), entry.get("measure", "both"), entry.get("only", "any")
    for value, choices in ((measure, MEASURES), (only, ONLY)):
        if value not in choices:
            raise UserError(f"{path}: {entry['name']}: {value!r}; {did_you_mean(str(value), choices)}")
    if not isinstance(settings, dict):
        raise UserError(f"{path}: {entry['name']}: settings should be KEY: VALUE, not {settings!r}; mend it")
    return Method(entry["name"], trainer, pairs_of(settings), group=entry["group"], measure=measure, only=only)


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
