"""Keys x values: every setting with values that are wrong, that may be, and at the ends of what it accepts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import yaml

import trainers
from coft.core.settings import LARGEST, Key, SettingError, checked
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY
from trainers.sections import known_keys

from .oracle import EITHER, MARK, REFUSED, Case, Right
from .scene import Scene

NAN = float("nan")
NUMBERS: tuple[Any, ...] = ("x", [1], True, None, NAN, float("inf"), -float("inf"), "1e999", 10**60, {"A": 1}, "", [])
WRONG: dict[type, tuple[Any, ...]] = {
    int: (1.5, "2**3", *NUMBERS),
    float: (1e39, *NUMBERS),
    bool: ("x", 2, 0.5, "yes", [True], [], "", None, NAN),
    str: (None, [], {"A": 1}),  # all else that a file says is text
    tuple: ("x", 5, True, None, {"A": 1}, NAN, ""),
}
DOUBTFUL: dict[type, tuple[Any, ...]] = {
    **{int: (-5, -1, 0), float: (-1, 0, -0.0), bool: (), str: ("''", "' '", "'\\x00'"), tuple: ([], [-1], [[1]])}
}
PASSED: dict[type, tuple[Any, ...]] = {tuple: ("x", "", None)}  # values in a file that are one entry, or none
CODE = f"!!python/object/apply:os.system ['touch {MARK}']"
ELSEWHERE = {"TRAINER.NAME": "--trainer", "MODEL.BACKBONE.NAME": "unknown backbone"}  # what a message may say instead
FREE = {
    "OUTPUT_DIR",
    "RESUME",
    "DATASET.ROOT",
    "TRAIN.PHASE1_FROM",
    "MODEL.INIT_WEIGHTS",
    "TRAINER.NAME",
    "DATASET.NAME",
}


@cache
def settings() -> dict[str, Key]:
    """All settings of the merged config: those that are declared, and Dassl's others, of which the type is known."""
    cfg = get_cfg_default()
    trainers.extend_cfg(cfg)
    return known_keys(cfg)


def wrong_values() -> Iterator[Case]:
    """Cases of the category settings: each setting, on the command line and in a file."""
    for name, key in settings().items():
        kind = tuple if key.is_list else key.kind
        if kind not in WRONG:
            continue
        names = (name, "PREC", "SIZE", ELSEWHERE.get(name, name))
        pairs = [(value, REFUSED) for value in WRONG[kind]] + [(value, EITHER) for value in DOUBTFUL[kind]]
        if kind is str and name not in FREE:
            pairs.append(("unknown-thing", REFUSED if key.choices else EITHER))
        for value, right in pairs:
            text = value if isinstance(value, str) else repr(value)
            if kind is not str or isinstance(value, str):  # on the command line any number is a text, too
                yield case(f"{name} {text}", right, names, words=(name, text))
            if kind is not str or not isinstance(value, str):
                right = EITHER if value is None or value in PASSED.get(kind, ()) else right
                yield case(f"{name}: {value!r} in a file", right, names, text=in_file(name, value))
        yield case(f"{name}X", REFUSED, (f"{name}X",), words=(f"{name}X", "1"))
        yield case(f"{name} without a value", REFUSED, (name,), words=(name,))
        yield case(f"{name}: code in a file", REFUSED, ("own.yaml",), text=in_file(name, "CODE").replace("CODE", CODE))


def in_file(name: str, value: Any) -> str:
    """A config file with a setting."""
    tree = value
    for part in reversed(name.split(".")):
        tree = {part: tree}
    return yaml.safe_dump(tree)


def case(name: str, right: Right, names: tuple[str, ...], words: tuple[str, ...] = (), text: str = "") -> Case:
    """The config of KEY VALUE, or of a file."""
    return Case("settings", name, partial(configured, words=words, text=text), right, names)


def configured(scene: Scene, words: tuple[str, ...], text: str) -> None:
    scene.config(file=scene.file("own.yaml", text) if text else None, settings=words)


LABELED = ("COOP", "SUPERVISED")  # trainers that need labels
SHARED = ("INPUT.", "DATALOADER.", "MODEL.", "OPTIM.", "TRAIN.", "TEST.")  # sections that all of them read
LENGTHS = {"EPOCHS": 1, "MAX_EPOCH": 1, "ROUNDS": 1, "MIN_STEPS": 2, "TEXT_STEPS": 2}  # so that a run takes a second
LONG = (*LENGTHS, "LABEL_VIEWS", "ENSEMBLE", "NUM_WORKERS", "N_CTX")
LATER = (  # which take files or minutes, or leave no predictions to look at
    *("TRAIN.PHASE1_FROM", "TRAIN.COMPILE", "MODEL.BACKBONE.NAME", "MODEL.INIT_WEIGHTS", "TEST.NO_TEST"),
)


def trainer_of(name: str) -> str:
    """The trainer that reads a setting; empty if none does that needs no label."""
    names = {trainer.upper(): trainer for trainer in TRAINER_REGISTRY.registered_names()}
    section = name.split(".")[1] if name.startswith("TRAINER.") else ""
    if name.startswith(SHARED):
        return "CoFT"
    return names.get(section, "") if section not in LABELED else ""


def ends(key: Key) -> list[Any]:
    """Values at the ends of what a setting accepts, and all of its choices."""
    if key.is_list or key.kind not in (int, float, bool, str):
        return []
    if key.kind is bool:
        return [not key.default]
    if key.choices or key.kind is str:
        return [choice for choice in key.choices if choice != key.default]
    values: list[Any] = [0, 1, 2, LARGEST[int]] if key.kind is int else [0.0, 1e-30, 1.0, 1e30]
    if key.kind is int and key.name.endswith(LONG):
        values = [0, 1, 3]
    values += [bound for bound in (key.at_least, key.at_most) if bound is not None]
    return [value for value in dict.fromkeys(map(key.kind, values)) if value != key.default and accepts(key, value)]


def accepts(key: Key, value: Any) -> bool:
    """Whether a setting takes a value on its own."""
    try:
        checked(key, value)
    except SettingError:
        return False
    return True


def end_values() -> Iterator[Case]:
    """Cases of the category values: a run each, whose predictions are numbers."""
    for name, key in settings().items():
        if name not in LATER and (trainer := trainer_of(name)):
            names = (name, "epoch", "learning rate", "PREC", name.rpartition(".")[2])
            for value in ends(key):
                run = partial(trained, trainer=trainer, words=(name, str(value)))
                yield Case("values", f"{name} {value!r}", run, names=names, seconds=90)


def trained(scene: Scene, trainer: str, words: tuple[str, ...]) -> None:
    """Train with settings, in short runs."""
    ends = {name: LENGTHS[name.rpartition(".")[2]] for name in settings() if name.endswith(tuple(LENGTHS))}
    short = [word for name, count in ends.items() for word in (name, str(count))]
    scene.train("--trainer", trainer, settings=(*short, "TRAIN.COMPILE", "", *words))
