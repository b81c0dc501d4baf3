"""Settings: each is declared once, as a field of a frozen dataclass, beside the code that reads it.

A field declares its default, help text, valid values and effects (`setting`). Everything else is derived from it: the
keys of the config, validation, error messages, names in Python, and the table in the docs. A field that is itself a
settings class (`field(default_factory=...)`) is a section of the config; its metadata apply to all settings in the
section. A class checks values that depend on each other in a method `conflicts`, which yields pairs of a key of the
section and what was expected instead.

Types are strict, so that no value is misread: True is not a number, 32.0 is not a whole number, a text is not a number.
The only conversions are from a whole number to a float (1 becomes 1.0), and from a list to a tuple.
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

LARGEST = {int: 2**32 - 1, float: 3.4e38}  # limits of all settings, whatever their own bounds: uint32 and float32
KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}
ENTRIES = {int: "whole numbers", float: "numbers", str: "texts"}
EXAMPLES: dict[Any, tuple[Any, ...]] = {float: (0.5, 1), str: ("a", "b")}


@dataclass(frozen=True)
class Key:
    """Key of a config: a setting. Bounds and choices of a list apply to each entry.

    Attributes:
        name: Full name, such as "OPTIM.LR".
        kind: Type of the value, or of the entries of a list: bool, int, float, str; Any if undeclared.
        is_list: Whether the value is a list.
        default: Default value.
        help: Help text, one line.
        at_least, above, at_most, below: Bounds of a number.
        choices: All valid values; empty if they cannot be listed.
        lengths: Valid lengths of a list; empty for any length.
        free: Whether the setting affects only locations, speed and output of a run, but no results.
        phase2: Whether the setting has no effect in Phase I.
        in_phase1: Exceptions to `phase2`: values that do have an effect in Phase I.
        adapt: Whether `coft.adapt` reads the setting. It reads all settings of a method in any case.
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
        """Description of the valid values, for error messages."""
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

    def accepts(self, entry: Any) -> bool:
        """Return whether a single value has the right type and is within the bounds. NaN and infinity never are."""
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
        return low and high and inside and abs(entry) <= LARGEST[kind]  # False for NaN

    def same_phase1(self, one: Any, other: Any) -> bool:
        """Return whether Phase I gives the same results with two values of the setting."""
        if one == other or self.free:
            return True
        return self.phase2 and one not in self.in_phase1 and other not in self.in_phase1


def setting(default: Any, help: str, **marks: Any) -> Any:
    """Declare a field of a settings class.

    Args:
        default: Default value. The type is the field's annotation.
        help: Help text, one line.
        **marks: Valid values and effects: further attributes of `Key`.
    """
    return dataclasses.field(default=default, metadata={"help": help, **marks})


def share(default: float, help: str, **marks: Any) -> Any:
    """Declare a setting that is a number from 0 to 1."""
    return setting(default, help, at_least=0.0, at_most=1.0, **marks)


class SettingError(UserError):
    """Error of an invalid value: full name of the setting, its value, and what was expected."""

    def __init__(self, key: str, value: Any, clause: str) -> None:
        super().__init__(f"{key} is {shown(value)}; {clause}")
        self.key = key


def shown(value: Any) -> str:
    """Format a value for an error message: on one line, truncated where it is long or nested."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother, short.maxlong = 2, 60, 60, 40
    try:
        return short.repr(value)
    except ValueError:  # Python refuses to format integers of more than 4300 digits
        return "a number of thousands of digits"


def key_name(field: dataclasses.Field[Any]) -> str:
    """Return the name of a field in the config: LR for lr, FROM for from_."""
    return field.name.rstrip("_").upper()


def join(section: str, key: str) -> str:
    """Return the full name of a key in a section. The name of the root section is empty."""
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
    """Return all settings of a class and its sub-sections by full name, in the order of declaration.

    Args:
        cls: A settings class, or an instance, whose values become the defaults.
        section: Name of the section in the config.
        **marks: Attributes of `Key` for all settings that do not set them themselves.
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
    """Return the key of an undeclared setting. Its type is that of its default; Any for None and entries of a list."""
    is_list = isinstance(default, (list, tuple))
    return Key(name, Any if is_list or default is None else type(default), is_list, default)


def checked(key: Key, value: Any) -> Any:
    """Validate a value, and convert it to the type of its setting.

    Raises:
        SettingError: If the value is invalid.
    """
    if key.kind is Any and not key.is_list:
        return value
    entries = value if key.is_list else (value,)
    right = isinstance(entries, (list, tuple)) and all(map(key.accepts, entries))
    if right and (not key.lengths or len(entries) in key.lengths):
        kept = tuple(float(entry) if key.kind is float else entry for entry in entries)
        return kept if key.is_list else kept[0]
    raise SettingError(key.name, value, f"expected {key.expected}{_hint(key, value)}")


def _hint(key: Key, value: Any) -> str:
    """Return a hint for an invalid value: the most similar choice, or the largest number allowed."""
    entries = value if isinstance(value, (list, tuple)) else [value]
    strange = [entry for entry in entries if isinstance(entry, str) and entry not in key.choices]
    if strange and (guess := nearest(strange[0], [choice for choice in key.choices if isinstance(choice, str)])):
        return f"; did you mean {guess!r}?"
    most = LARGEST.get(key.kind, float("inf"))
    too_large = any(isinstance(entry, (int, float)) and abs(entry) > most for entry in entries)
    return f", and no more than {most:.10g}" if too_large else ""


def load(cls: Any, values: Mapping[str, Any], section: str = "") -> Any:
    """Build an instance of a settings class from a config.

    Args:
        cls: The settings class, or an instance, whose values become the defaults.
        values: The flattened config. Missing keys get their default; keys of other sections are ignored.
        section: Name of the section.

    Returns:
        An instance.

    Raises:
        SettingError: If a value is invalid, or does not fit the others.
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
    for leaf, clause in instance.conflicts() if hasattr(instance, "conflicts") else ():
        raise SettingError(join(section, leaf), getattr(instance, leaf.lower()), clause)
    return instance
