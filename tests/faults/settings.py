"""Values of all settings: invalid ones, doubtful ones, and the bounds of what each setting accepts."""

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

from .verdict import CANARY, EITHER, REFUSED, Case, Expected
from .workspace import Workspace

NAN = float("nan")
NUMBERS: tuple[Any, ...] = ("x", [1], True, None, NAN, float("inf"), -float("inf"), "1e999", 10**60, {"A": 1}, "", [])
INVALID: dict[type, tuple[Any, ...]] = {
    int: (1.5, "2**3", *NUMBERS),
    float: (1e39, *NUMBERS),
    bool: ("x", 2, 0.5, "yes", [True], [], "", None, NAN),
    str: (None, [], {"A": 1}),  # any other value in a file is read as text
    tuple: ("x", 5, True, None, {"A": 1}, NAN, ""),
}
DOUBTFUL: dict[type, tuple[Any, ...]] = {
    **{int: (-5, -1, 0), float: (-1, 0, -0.0), bool: (), str: ("''", "' '", "'\\x00'"), tuple: ([], [-1], [[1]])}
}
ONE_ENTRY = ("x", "", None)  # in a file, these may stand for a list of one entry or none
EXPLOIT = f"!!python/object/apply:os.system ['touch {CANARY}']"
OTHER_NAMES = {"TRAINER.NAME": "--trainer", "MODEL.BACKBONE.NAME": "unknown backbone"}  # that a message may use
ANY_TEXT = {
    *("OUTPUT_DIR", "RESUME", "DATASET.ROOT", "TRAIN.PHASE1_FROM", "MODEL.INIT_WEIGHTS", "TRAINER.NAME"),
    "DATASET.NAME",
}


@cache
def all_settings() -> dict[str, Key]:
    """Return all settings of the merged config: the declared ones, and those of Dassl whose type is known."""
    cfg = get_cfg_default()
    trainers.extend_cfg(cfg)
    return known_keys(cfg)


def invalid_values() -> Iterator[Case]:
    """Cases of the category settings: each setting, on the command line and in a file."""
    for name, key in all_settings().items():
        kind = tuple if key.is_list else key.kind
        if kind not in INVALID:
            continue
        names = (name, "PREC", "SIZE", OTHER_NAMES.get(name, name))
        values = [(value, REFUSED) for value in INVALID[kind]] + [(value, EITHER) for value in DOUBTFUL[kind]]
        if kind is str and name not in ANY_TEXT:
            values.append(("unknown-thing", REFUSED if key.choices else EITHER))
        for value, expected in values:
            text = value if isinstance(value, str) else repr(value)
            if kind is not str or isinstance(value, str):  # on the command line any value is text
                yield config_case(f"{name} {text}", expected, names, arguments=(name, text))
            if kind is not str or not isinstance(value, str):
                is_doubtful = value is None or (kind is tuple and value in ONE_ENTRY)
                in_file = EITHER if is_doubtful else expected
                yield config_case(f"{name}: {value!r} in a file", in_file, names, file=config_file(name, value))
        yield config_case(f"{name}X", REFUSED, (f"{name}X",), arguments=(f"{name}X", "1"))
        yield config_case(f"{name} without a value", REFUSED, (name,), arguments=(name,))
        exploit = config_file(name, "CODE").replace("CODE", EXPLOIT)
        yield config_case(f"{name}: code in a file", REFUSED, ("own.yaml",), file=exploit)


def config_file(name: str, value: Any) -> str:
    """Return the text of a config file with one setting."""
    tree = value
    for part in reversed(name.split(".")):
        tree = {part: tree}
    return yaml.safe_dump(tree)


def config_case(
    name: str, expected: Expected, input_names: tuple[str, ...], arguments: tuple[str, ...] = (), file: str = ""
) -> Case:
    """Return the case of a config made from arguments, or from a file."""
    return Case("settings", name, partial(make_config, arguments=arguments, file=file), expected, input_names)


def make_config(workspace: Workspace, arguments: tuple[str, ...], file: str) -> None:
    if file:
        workspace.read_config(workspace.write("own.yaml", file))
    else:
        workspace.make_config(settings=arguments)


LABELED = ("COOP", "SUPERVISED")  # sections of trainers that need labels
SHARED = ("INPUT.", "DATALOADER.", "MODEL.", "OPTIM.", "TRAIN.", "TEST.")  # sections that all trainers read
SHORT_RUN = {"EPOCHS": 1, "MAX_EPOCH": 1, "ROUNDS": 1, "MIN_STEPS": 2, "TEXT_STEPS": 2}
COSTLY = (*SHORT_RUN, "LABEL_VIEWS", "ENSEMBLE", "NUM_WORKERS", "N_CTX")  # the time grows with the value
SKIPPED = (  # need files or minutes, or leave no predictions
    *("TRAIN.PHASE1_FROM", "TRAIN.COMPILE", "MODEL.BACKBONE.NAME", "MODEL.INIT_WEIGHTS", "TEST.NO_TEST"),
)


def trainer_of(name: str) -> str:
    """Return a label-free trainer that reads a setting; empty if there is none."""
    trainer_names = {trainer.upper(): trainer for trainer in TRAINER_REGISTRY.registered_names()}
    section = name.split(".")[1] if name.startswith("TRAINER.") else ""
    if name.startswith(SHARED):
        return "CoFT"
    return trainer_names.get(section, "") if section not in LABELED else ""


def bounds(key: Key) -> list[Any]:
    """Return the bounds of what a setting accepts, or all of its choices, without the default."""
    if key.is_list or key.kind not in (int, float, bool, str):
        return []
    if key.kind is bool:
        return [not key.default]
    if key.choices or key.kind is str:
        return [choice for choice in key.choices if choice != key.default]
    values: list[Any] = [0, 1, 2, LARGEST[int]] if key.kind is int else [0.0, 1e-30, 1.0, 1e30]
    if key.kind is int and key.name.endswith(COSTLY):
        values = [0, 1, 3]
    values += [bound for bound in (key.at_least, key.at_most) if bound is not None]
    return [value for value in dict.fromkeys(map(key.kind, values)) if value != key.default and accepts(key, value)]


def accepts(key: Key, value: Any) -> bool:
    try:
        checked(key, value)
    except SettingError:
        return False
    return True


def bound_values() -> Iterator[Case]:
    """Cases of the category bounds: a run each, whose predictions must be finite."""
    for name, key in all_settings().items():
        if name not in SKIPPED and (trainer := trainer_of(name)):
            names = (name, "epoch", "learning rate", "PREC", name.rpartition(".")[2])
            for value in bounds(key):
                run = partial(train, trainer=trainer, arguments=(name, str(value)))
                yield Case("bounds", f"{name} {value!r}", run, input_names=names, seconds=90)


def train(workspace: Workspace, trainer: str, arguments: tuple[str, ...]) -> None:
    """Do a short run with settings."""
    short_run = [
        word
        for name in all_settings()
        if name.endswith(tuple(SHORT_RUN))
        for word in (name, str(SHORT_RUN[name.rpartition(".")[2]]))
    ]
    workspace.train("--trainer", trainer, settings=(*short_run, "TRAIN.COMPILE", "", *arguments))
