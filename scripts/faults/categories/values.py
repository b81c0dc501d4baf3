"""Settings at the ends of what they accept, in runs: each is trained with, or refused by its name."""

from __future__ import annotations

from functools import partial
from typing import Any

from coft.core.errors import UserError
from coft.core.settings import LARGEST, Key, checked

from ..case import Case
from ..scene import Scene
from .numbers import no_nan
from .settings import known

CATEGORY = "values"
SHARE = 12  # of the cases, --quick plays one in so many
TRAINERS = {  # by section
    "COFT": "CoFT",
    "COFTPLUS": "CoFTPlus",
    "DEFT": "DeFT",
    "UPL": "UPL",
    "GRIP": "GRIP",
    "LAFTER": "LaFTer",
    "SELFTRAINING": "SelfTraining",
    "NORMADAPTATION": "NormAdaptation",
    "TRAININGFREE": "TrainingFree",
}
SHARED = ("INPUT.", "DATALOADER.", "MODEL.", "OPTIM.", "TRAIN.", "TEST.")  # sections that all of them read
SHORT = {  # so that a run takes a second
    **{f"TRAINER.{name}.PHASE1.EPOCHS": "1" for name in ("COFT", "COFTPLUS", "DEFT")},
    **{f"TRAINER.{name}.PHASE1.MIN_STEPS": "2" for name in ("COFT", "COFTPLUS", "DEFT")},
    **{f"TRAINER.{name}.PHASE2.EPOCHS": "1" for name in ("COFT", "COFTPLUS", "DEFT")},
    **{f"TRAINER.{name}.EPOCHS": "1" for name in ("LAFTER", "SELFTRAINING")},
    "TRAINER.LAFTER.TEXT_STEPS": "2",
    "TRAINER.GRIP.ROUNDS": "1",
    "OPTIM.MAX_EPOCH": "1",
    "TRAIN.COMPILE": "",
}
LONG = ("EPOCHS", "MAX_EPOCH", "ROUNDS", "MIN_STEPS", "TEXT_STEPS", "LABEL_VIEWS", "ENSEMBLE", "NUM_WORKERS", "N_CTX")
LATER = (  # files, minutes, or no predictions to look at
    *("TRAIN.FORK", "TRAIN.COMPILE", "MODEL.BACKBONE.NAME", "MODEL.INIT_WEIGHTS", "TEST.NO_TEST"),
)


def cases(quick: bool) -> list[Case]:
    """All cases; one in a few of them if it has to be quick."""
    found = [
        Case(CATEGORY, f"{key.name} {value!r}", partial(trained, key=key, value=value), names=named(key), seconds=90)
        for key in known().values()
        if key.name not in LATER and (trainer_of(key.name) or key.name.startswith(SHARED))
        for value in ends(key)
    ]
    return found[::SHARE] if quick else found


def trainer_of(name: str) -> str:
    """The trainer that a key is of; empty if it is none of those that are tried."""
    parts = name.split(".")
    return TRAINERS.get(parts[1], "") if parts[0] == "TRAINER" and len(parts) > 2 else ""


def named(key: Key) -> tuple[str, ...]:
    """What a refusal may name: the key, or where the run came to."""
    return (key.name, "epoch", "learning rate", "PREC", key.name.rpartition(".")[2])


def ends(key: Key) -> list[Any]:
    """Values at the ends of what a key accepts, and all of its choices."""
    if key.entry is not None or key.kind not in (int, float, bool, str):
        return []
    if key.kind is bool:
        return [not key.default]
    if key.rule.choices:
        return [choice for choice in key.rule.choices if choice != key.default]
    if key.kind is str:
        return []
    tried: list[Any] = [0, 1, 2, LARGEST[int]] if key.kind is int else [0.0, 1e-30, 1.0, 1e30]
    if key.kind is int and key.name.endswith(LONG):
        tried = [0, 1, 3]
    tried += [bound for bound in (key.rule.at_least, key.rule.at_most) if bound is not None]
    return [value for value in dict.fromkeys(map(key.kind, tried)) if value != key.default and accepts(key, value)]


def accepts(key: Key, value: Any) -> bool:
    """Whether a key takes a value on its own."""
    try:
        checked(key, value)
    except UserError:
        return False
    return True


def trained(scene: Scene, key: Key, value: Any) -> None:
    """Train with a value, and look at what is predicted."""
    trainer = trainer_of(key.name) or "CoFT"
    short = [word for name, text in SHORT.items() if name != key.name for word in (name, text)]
    no_nan(scene.train("--trainer", trainer, settings=(*short, key.name, str(value))))
