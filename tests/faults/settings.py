"""Values of all settings: invalid and doubtful ones."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import yaml

import trainers
from coft.core.settings import Key
from dassl.config import get_cfg_default
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
                yield config_case(f"{name} {text}", expected, names, name, text)
            if kind is not str or not isinstance(value, str):
                is_doubtful = value is None or (kind is tuple and value in ONE_ENTRY)
                in_file = EITHER if is_doubtful else expected
                yield config_case(f"{name}: {value!r} in a file", in_file, names, file=config_file(name, value))
        yield config_case(f"{name}X", REFUSED, (f"{name}X",), f"{name}X", "1")
        yield config_case(f"{name} without a value", REFUSED, (name,), name)
        exploit = config_file(name, "CODE").replace("CODE", EXPLOIT)
        yield config_case(f"{name}: code in a file", REFUSED, ("own.yaml",), file=exploit)


def config_file(name: str, value: Any) -> str:
    """Return the text of a config file with one setting."""
    tree = value
    for part in reversed(name.split(".")):
        tree = {part: tree}
    return yaml.safe_dump(tree)


def config_case(name: str, expected: Expected, input_names: tuple[str, ...], *settings: str, file: str = "") -> Case:
    """Return the case of a config made from settings and a file."""
    return Case("settings", name, partial(make_config, settings=settings, file=file), expected, input_names)


def make_config(workspace: Workspace, settings: tuple[str, ...], file: str) -> None:
    workspace.make_config("--config-file", str(workspace.write("own.yaml", file)), settings=settings)
