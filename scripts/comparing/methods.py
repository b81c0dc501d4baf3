"""What is compared: the rows of a comparison, each a trainer with settings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import trainers
from coft.core.errors import UserError, did_you_mean
from coft.core.experiment import flatten
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY
from scripts.launch import CONFIGS

Settings = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Rival:
    """A trainer that comparisons know.

    Attributes:
        trainer: Its name in Dassl's registry.
        label_free: Whether it reads no label of a training image.
        by_shots: Whether it is run once for each number of labelled images of a class.
        seeded: Whether its result depends on the seed; if not, one seed is enough.
        default: Whether it is there where no trainer is named.
    """

    trainer: str
    label_free: bool = True
    by_shots: bool = False
    seeded: bool = True
    default: bool = True


@dataclass(frozen=True)
class Method:
    """A row of a comparison.

    Attributes:
        name: What the tables call it.
        trainer: Its trainer.
        settings: Keys and values, besides those of the trainer's config file.
        shots: Labelled images of each class; None for trainers that have no such number.
        seeded: Whether it is run with each seed, or with the first one alone.
    """

    name: str
    trainer: str
    settings: Settings = ()
    shots: int | None = None
    seeded: bool = True


RIVALS = (
    Rival("ZeroshotCLIP", seeded=False),
    Rival("NormAdaptation", seeded=False),
    Rival("TrainingFree"),
    Rival("UPL"),
    Rival("GRIP"),
    Rival("LaFTer"),
    Rival("DeFT"),
    Rival("SelfTraining"),
    Rival("CoFT"),
    Rival("CoFTPlus"),
    Rival("CoOp", label_free=False, by_shots=True),
    Rival("Supervised", label_free=False),
    Rival("CoFTOracle", label_free=False, default=False),
)
# Rows that are there by default as soon as their trainers have these keys.
DEFAULT_VARIANTS = (
    Method("prior correction", "TrainingFree", (("TRAINER.TRAININGFREE.RULE", "prior"),)),
    Method("optimal transport", "TrainingFree", (("TRAINER.TRAININGFREE.RULE", "transport"),)),
    Method("TransCLIP", "TrainingFree", (("TRAINER.TRAININGFREE.RULE", "transclip"),)),
    Method("UPL x 2", "UPL", (("TRAINER.UPL.ENSEMBLE", "2"),)),
)


def method_name(trainer: str, shots: int) -> str:
    """What tables call a trainer with so many labelled images of each class; 0 or less is no such number."""
    return trainer + (f", {shots} shot{'s' * (shots > 1)}" if shots > 0 else "")


def rival(trainer: str) -> Rival | None:
    """The entry of a trainer, if comparisons know it."""
    return next((known for known in RIVALS if known.trainer == trainer), None)


def runnable() -> list[str]:
    """Registered trainers that have a folder of configs."""
    return [name for name in TRAINER_REGISTRY.registered_names() if (CONFIGS / "trainers" / name).is_dir()]


def known_keys() -> set[str]:
    """Config keys of Dassl and of all trainers."""
    cfg = get_cfg_default()
    trainers.extend_cfg(cfg)
    return set(flatten(cfg))


def choose_methods(names: Sequence[str], shots: Sequence[int], variants: Iterable[Method] = ()) -> list[Method]:
    """Rows of a comparison.

    Args:
        names: Trainers; without any, all that exist, and the default variants.
        shots: Numbers of labelled images, for trainers that are run by shots.
        variants: Further rows.

    Raises:
        UserError: If there is no such trainer, a number of images is below 1, or two rows would have one name.
    """
    if few := [count for count in shots if count < 1]:
        raise UserError(f"--shots {few[0]}: expected at least 1 labelled image of each class")
    existing = runnable()
    for name in names:
        if name not in existing:
            raise UserError(f"--trainers: unknown trainer {name!r}; {did_you_mean(name, existing)}")
    chosen = names or defaults()
    methods = [method for name in chosen for method in _rows(name, shots)]
    if not names:
        keys = known_keys()
        methods = [row for method in methods for row in (method, *_default_variants(method, keys))]
    return without_repeats([*methods, *variants])


def defaults() -> list[str]:
    """Trainers that are compared where none is named."""
    existing, known = runnable(), {rival.trainer: rival for rival in RIVALS}
    ours = [name for name, entry in known.items() if name in existing and entry.default]
    return [*ours, *(name for name in existing if name not in known)]


def without_repeats(methods: Iterable[Method]) -> list[Method]:
    """Rows in their order, each once.

    Raises:
        UserError: If rows that differ have one name.
    """
    unique = list(dict.fromkeys(methods))
    for name, count in Counter(method.name for method in unique).items():
        if count > 1:
            raise UserError(f"--variant: {count} rows would be named {name!r}; give each a name of its own")
    return unique


def _rows(trainer: str, shots: Sequence[int]) -> list[Method]:
    known = rival(trainer) or Rival(trainer)
    if known.by_shots:
        return [Method(method_name(trainer, count), trainer, shots=count) for count in shots]
    return [Method(trainer, trainer, seeded=known.seeded)]


def _default_variants(method: Method, keys: set[str]) -> list[Method]:
    candidates = [variant for variant in DEFAULT_VARIANTS if variant.trainer == method.name]
    return [variant for variant in candidates if all(key in keys for key, _ in variant.settings)]


def parse_variant(text: str) -> Method:
    """Read `NAME:TRAINER:KEY=VALUE,KEY=VALUE`; a value may hold commas and colons.

    Raises:
        UserError: If the text is not like that, or there is no such trainer.
    """
    name, _, rest = text.partition(":")
    trainer, _, pairs = rest.partition(":")
    settings = tuple(pair.partition("=")[::2] for pair in re.split(r",(?=[A-Z0-9_.]+=)", pairs))
    if not name or not all(key and value for key, value in settings):
        raise UserError(f"--variant {text!r}: expected NAME:TRAINER:KEY=VALUE,KEY=VALUE")
    if trainer not in runnable():
        raise UserError(f"--variant {text!r}: unknown trainer {trainer!r}; {did_you_mean(trainer, runnable())}")
    return Method(name, trainer, settings)
