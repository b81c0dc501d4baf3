"""Every setting of the merged config with values that are wrong, on the command line and in a file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import yaml

from coft.core.settings import Key

from ..case import Case, Right, Wrong
from ..scene import Scene

CATEGORY = "settings"
SHARE = 4  # of the cases, --quick plays one in so many
NUMBERS = ("x", "[1]", "True", "None", "nan", "inf", "-inf", "1e999", "1" + "0" * 60, "{'a': 1}", "")
WRONG = {
    int: ("1.5", "2**3", *NUMBERS),
    float: ("1e39", *NUMBERS),
    bool: ("x", "2", "yes", "[True]", "", "None", "nan"),
    str: (),
    tuple: ("x", "5", "True", "None", "{'a': 1}", "nan", ""),
}
DOUBTFUL = {
    int: ("-1", "0", "-5"),
    float: ("-1", "0", "-0.0"),
    bool: (),
    str: ("''", "' '", "'\\x00'"),
    tuple: ("[]", "[-1]", "[[1]]"),
}
IN_FILES: dict[type, tuple[Any, ...]] = {
    int: (float("nan"), float("inf"), None, [], {}, "x", 1.5, True),
    float: (float("nan"), float("-inf"), None, [], {"A": 1}, "x", True),
    bool: (2, None, [], "x", 0.5),
    str: (5, True, None, [], {"A": 1}, float("nan")),
    tuple: (5, None, "x", {"A": 1}, True),
}
CODE = "!!python/object/apply:os.system ['touch here']"
FLAGS = {"TRAINER.NAME": ("--trainer",), "MODEL.BACKBONE.NAME": ("unknown backbone",)}  # what a message may say instead
FREE = {"OUTPUT_DIR", "RESUME", "DATASET.ROOT", "TRAIN.FORK", "MODEL.INIT_WEIGHTS", "TRAINER.NAME", "DATASET.NAME"}


def cases(quick: bool) -> list[Case]:
    """All cases of all settings; one in a few of them if it has to be quick."""
    found = [case for key in known().values() for case in of_key(key)]
    return found[::SHARE] if quick else found


def known() -> dict[str, Key]:
    """All settings of the merged config."""
    import trainers
    from dassl.config import get_cfg_default
    from trainers.sections import known_keys

    cfg = get_cfg_default()
    trainers.extend_cfg(cfg)
    return known_keys(cfg)


def of_key(key: Key) -> Iterator[Case]:
    """Cases of a setting."""
    kind = tuple if key.entry is not None else key.kind
    if kind not in WRONG:
        return
    name = key.name
    yield Case(CATEGORY, f"{name}X", partial(on_command_line, name=f"{name}X", text="1"), Right.REFUSED, (f"{name}X",))
    yield Case(CATEGORY, f"{name} without a value", partial(without_value, name=name), Right.REFUSED, (name,))
    for text in WRONG[kind]:
        yield Case(CATEGORY, f"{name} {text}", partial(on_command_line, name=name, text=text), Right.REFUSED, (name,))
    for text in DOUBTFUL[kind]:
        names = (name, "PREC", "SIZE", *FLAGS.get(name, ()))
        yield Case(CATEGORY, f"{name} {text}", partial(on_command_line, name=name, text=text), names=names)
    if kind is str and name not in FREE:
        right = Right.REFUSED if key.rule.choices else Right.EITHER
        yield Case(CATEGORY, f"{name} unknown", partial(on_command_line, name=name, text="unknown-thing"), right)
    for value in IN_FILES[kind]:
        refused = Right.EITHER if kind is tuple and value in (None, "x") else Right.REFUSED
        right = Right.EITHER if value is None else refused
        yield Case(CATEGORY, f"{name}: {value!r} in a file", partial(in_file, name=name, value=value), right, (name,))
    yield Case(CATEGORY, f"{name}: code in a file", partial(code_in_file, name=name), Right.REFUSED, ("bad.yaml",))


def on_command_line(scene: Scene, name: str, text: str) -> None:
    """Set a key by KEY VALUE."""
    scene.config(settings=(name, text))


def without_value(scene: Scene, name: str) -> None:
    """Name a key and no value."""
    scene.config(settings=(name,))


def in_file(scene: Scene, name: str, value: Any) -> None:
    """Set a key in a file."""
    scene.config("--config-file", str(scene.file("bad.yaml", yaml.safe_dump(nested(name, value)))))


def code_in_file(scene: Scene, name: str) -> None:
    """Set a key to what a careless reader would run."""
    text = yaml.safe_dump(nested(name, "CODE")).replace("CODE", CODE)
    try:
        scene.config("--config-file", str(scene.file("bad.yaml", text)))
    finally:
        if (scene.place / "here").exists():
            raise Wrong("a config ran a program")


def nested(name: str, value: Any) -> Any:
    """Sections within sections, with a value at their end."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return value
