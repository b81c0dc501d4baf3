"""Settings: each is declared once, as a field of a frozen dataclass, beside the code that reads it.

A field says its default, what it does, which values make sense and what depends on it (`setting`). Everything else is
made of that: the keys of the config, the check of what a user wrote, the line of an error, names in Python, the table
in the docs. A field that is such a class itself (`field(default_factory=...)`) is a section of its own in the config;
its metadata are of all settings in it. What depends on several fields is said by a method `misfits`, which yields keys
of the section, each with what was expected instead.

Types are strict, so that nothing is taken as something else: True is no number, 32.0 is no whole number, a text is no
number. Only what is equal passes: a whole number for a number (1 becomes 1.0), a list for a tuple.
"""

from __future__ import annotations

import dataclasses
import reprlib
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from .errors import UserError, nearest

LARGEST = {int: 2**32 - 1, float: 3.4e38}  # what machines count with; more is refused whatever a setting says
KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}
ENTRIES = {int: "whole numbers", float: "numbers", str: "texts"}
EXAMPLES: dict[Any, tuple[Any, ...]] = {float: (0.5, 1), str: ("a", "b")}


@dataclass(frozen=True)
class Key:
    """A setting of a config. Of a list, bounds and choices are those of each entry.

    Attributes:
        name: Its full name, such as "OPTIM.LR".
        kind: Its type, or that of the entries of a list: bool, int, float, str; Any where nobody declared it.
        is_list: Whether it is a list.
        default: Its default.
        help: What it does, in one line.
        at_least, above, at_most, below: Bounds of a number.
        choices: All values that there are, if they can be named.
        lengths: Of a list, how many entries it may have; empty: any number.
        free: Whether it changes where, how fast and how loudly a run works, but no result.
        phase2: Whether it changes nothing in Phase I.
        in_phase1: Of a setting of Phase II, values that change Phase I all the same.
        adapt: Whether `coft.adapt` reads it. It reads all of a method.
    """

    name: str
    kind: Any
    is_list: bool
    default: Any
    help: str = ""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] = ()
    lengths: tuple[int, ...] = ()
    free: bool = False
    phase2: bool = False
    in_phase1: tuple[Any, ...] = ()
    adapt: bool = False

    @property
    def expected(self) -> str:
        """What it takes, in words."""
        bounds = {"of at least": self.at_least, "above": self.above, "of at most": self.at_most, "below": self.below}
        words = " and ".join(f"{word} {bound:.10g}" for word, bound in bounds.items() if bound is not None)
        if self.at_least is not None and self.at_most is not None:
            words = f"from {self.at_least:.10g} to {self.at_most:.10g}"
        names = ", ".join(str(choice) or "''" for choice in self.choices)
        if not self.is_list and names:
            return f"one of {names}" if len(self.choices) > 1 else names
        if not self.is_list:
            return f"{KINDS.get(self.kind, 'a value')} {words}".strip()
        count = " or ".join(map(str, self.lengths))
        parts = ["a list of", count, f"some of {names}" if names else ENTRIES.get(self.kind, "values"), words]
        example = self.choices[:1] or (2 * EXAMPLES.get(self.kind, (20, 40)))[: max(self.lengths, default=2)]
        return f"{' '.join(filter(None, parts))}, such as {list(example)}"

    def takes(self, entry: Any) -> bool:
        """Whether a single value has the type and keeps the bounds; NaN and infinity never do."""
        kind = type(entry) if self.kind is Any else self.kind
        if kind not in KINDS or type(entry) not in ((int, float) if kind is float else (kind,)):
            return False
        if self.choices:
            return entry in self.choices
        if kind not in LARGEST:
            return kind is bool or "\0" not in entry
        low = self.at_least is None or entry >= self.at_least
        high = self.at_most is None or entry <= self.at_most
        inside = (self.above is None or entry > self.above) and (self.below is None or entry < self.below)
        return low and high and inside and abs(entry) <= LARGEST[kind]  # NaN is not

    def same_phase1(self, one: Any, other: Any) -> bool:
        """Whether Phase I is the same with two values."""
        if one == other or self.free:
            return True
        return self.phase2 and one not in self.in_phase1 and other not in self.in_phase1


def setting(default: Any, help: str, **marks: Any) -> Any:
    """A field of a settings class.

    Args:
        default: Its default; its type is annotated.
        help: What it does, in one line.
        **marks: What it takes, and what depends on it: attributes of `Key`.
    """
    return dataclasses.field(default=default, metadata={"help": help, **marks})


def share(default: float, help: str, **marks: Any) -> Any:
    """A setting that is a number from 0 to 1."""
    return setting(default, help, at_least=0.0, at_most=1.0, **marks)


class SettingError(UserError):
    """A value that a setting does not take: its full name, what was written, and what was expected."""

    def __init__(self, key: str, value: Any, clause: str) -> None:
        super().__init__(f"{key} is {shown(value)}; {clause}")
        self.key = key


def shown(value: Any) -> str:
    """Write a value for an error: in one line, and cut off where it is long or nested."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother, short.maxlong = 2, 60, 60, 40
    try:
        return short.repr(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number of thousands of digits"


def key_name(field: dataclasses.Field[Any]) -> str:
    """Name of a field in the config: LR of lr, FROM of from_."""
    return field.name.rstrip("_").upper()


def join(section: str, key: str) -> str:
    """Full name of a key of a section; the root's name is empty."""
    return f"{section}.{key}" if section else key


def flatten(tree: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """Flatten nested settings to {"A.B": value}; tuples become lists, as in YAML."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, join(section, key))
        else:
            flat[join(section, key)] = list(value) if isinstance(value, tuple) else value
    return flat


_annotations: Callable[[type], dict[str, Any]] = cache(typing.get_type_hints)


def keys(cls: Any, section: str = "", **marks: Any) -> dict[str, Key]:
    """All settings of a class and its sub-sections, by full name, in the order of their declaration.

    Args:
        cls: A settings class, or an instance, whose values are the defaults then.
        section: Its name in the config.
        **marks: Of all settings that have none of their own.
    """
    default = cls() if isinstance(cls, type) else cls
    settings: dict[str, Key] = {}
    for field in dataclasses.fields(default):
        name, value = join(section, key_name(field)), getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            settings |= keys(value, name, **(marks | dict(field.metadata)))
        else:
            kind = _annotations(type(default))[field.name]
            is_list = typing.get_origin(kind) is tuple
            entry = typing.get_args(kind)[0] if is_list else kind
            settings[name] = Key(name, entry, is_list, value, **(marks | dict(field.metadata)))
    return settings


def implied(name: str, default: Any) -> Key:
    """A setting that nobody declared: of its default no more than the type is known."""
    is_list = isinstance(default, (list, tuple))
    return Key(name, Any if is_list or default is None else type(default), is_list, default)


def checked(key: Key, value: Any) -> Any:
    """Return a value as its setting keeps it.

    Raises:
        SettingError: If the setting does not take it.
    """
    if key.kind is Any and not key.is_list:
        return value
    entries = value if key.is_list else (value,)
    right = isinstance(entries, (list, tuple)) and all(map(key.takes, entries))
    if right and (not key.lengths or len(entries) in key.lengths):
        kept = tuple(float(entry) if key.kind is float else entry for entry in entries)
        return kept if key.is_list else kept[0]
    raise SettingError(key.name, value, f"expected {key.expected}{_hint(key, value)}")


def _hint(key: Key, value: Any) -> str:
    """What else to say of a value that a setting does not take: the choice that is near, or how large it may be."""
    entries = value if isinstance(value, (list, tuple)) else [value]
    strange = [entry for entry in entries if isinstance(entry, str) and entry not in key.choices]
    if strange and (guess := nearest(strange[0], [choice for choice in key.choices if isinstance(choice, str)])):
        return f"; did you mean {guess!r}?"
    most = LARGEST.get(key.kind, float("inf"))
    too_large = any(isinstance(entry, (int, float)) and abs(entry) > most for entry in entries)
    return f", and no more than {most:.10g}" if too_large else ""


def load(cls: Any, values: Mapping[str, Any], section: str = "") -> Any:
    """Make settings of what a config says of them.

    Args:
        cls: The settings class, or an instance, whose values are the defaults then.
        values: The config, flattened. What is missing is as by default; keys of others are passed over.
        section: Name of the section.

    Returns:
        An instance.

    Raises:
        SettingError: On a value that a setting does not take.
    """
    default, settings = cls() if isinstance(cls, type) else cls, keys(cls, section)
    changes = {}
    for field in dataclasses.fields(default):
        name, value = join(section, key_name(field)), getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = load(value, values, name)
        elif name in values:
            changes[field.name] = checked(settings[name], values[name])
    instance = dataclasses.replace(default, **changes)
    for leaf, clause in instance.misfits() if hasattr(instance, "misfits") else ():
        raise SettingError(join(section, leaf), getattr(instance, leaf.lower()), clause)
    return instance
