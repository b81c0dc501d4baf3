"""Settings: declared once, as fields of a frozen dataclass, beside the code that reads them.

A field says its default, what it does, and which values make sense (`setting`). Everything else is made of that: the
section of the config, the check of what a user wrote, the line of an error, the table in the docs. A field that is such
a class itself (`field(default_factory=...)`) is a section of its own in the config. What depends on several fields is
said by a method `misfits`, which yields keys of the section, each with what was expected instead.

Types are strict, so that nothing is taken as something else: True is no number, 32.0 is no whole number, a text is no
number. Only what is equal passes: a whole number for a number (1 becomes 1.0), a list for a tuple.
"""

from __future__ import annotations

import dataclasses
import reprlib
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from coft.core.errors import UserError, did_you_mean, nearest

METADATA = "setting"


@dataclass(frozen=True)
class Rule:
    """What a setting does, and which values it takes. Of a list, bounds and choices are those of each entry.

    Attributes:
        help: One line for people.
        at_least: Smallest number.
        above: Number that it must exceed.
        at_most: Largest number.
        below: Number that it must not reach.
        choices: All values that there are, if they can be named.
        fits: Whether a value makes sense, where bounds cannot say it.
        words: What `fits` expects; takes the place of all other words.
    """

    help: str
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] = ()
    fits: Callable[[Any], bool] | None = None
    words: str = ""

    def expected(self) -> str:
        """What values the setting takes, in words; empty if any of its type will do."""
        if self.words:
            return self.words
        if self.choices:
            return "one of " + ", ".join(map(_named, self.choices))
        if self.at_least is not None and self.at_most is not None:
            return f"a number from {self.at_least:.10g} to {self.at_most:.10g}"
        bounds = {
            "at least": self.at_least,
            "above": self.above,
            "at most": self.at_most,
            "below": self.below,
        }
        said = " and ".join(f"{word} {bound:.10g}" for word, bound in bounds.items() if bound is not None)
        return f"a number {said}" if said.startswith(("above", "below")) else said

    def allows(self, value: Any) -> bool:
        """Whether a value of the right type makes sense. NaN and infinity never do."""
        several = isinstance(value, (list, tuple))
        entries = all(map(self._allows_entry, value)) if several else self._allows_entry(value)
        return entries and (self.fits is None or self.fits(value))

    def _allows_entry(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return True
        finite = abs(value) < float("inf")  # False for NaN, too
        low = self.at_least is None or value >= self.at_least
        high = self.at_most is None or value <= self.at_most
        inside = (self.above is None or value > self.above) and (self.below is None or value < self.below)
        return finite and low and high and inside


def _named(choice: Any) -> str:
    return str(choice) if choice != "" else "'' (none)"


def setting(default: Any, help: str, **bounds: Any) -> Any:
    """A field of a settings class.

    Args:
        default: Its default; its type is the setting's.
        help: One line for people.
        **bounds: See `Rule`.
    """
    return dataclasses.field(default=default, metadata={METADATA: Rule(help, **bounds)})


def share(default: float, help: str) -> Any:
    """A setting that is a number from 0 to 1."""
    return setting(default, help, at_least=0.0, at_most=1.0)


LARGEST = {int: 2**32 - 1, float: 3.4e38}  # what machines count with; more is refused whatever a setting says
KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}
LISTS = {int: "whole numbers, such as [1, 2]", float: "numbers, such as [0.5, 1]", str: "texts, such as ['a', 'b']"}


class SettingError(UserError):
    """A value that a setting does not take.

    Args:
        key: The setting's full name.
        value: What was written.
        clause: What was expected.
    """

    def __init__(self, key: str, value: Any, clause: str) -> None:
        super().__init__(f"{key} is {shown(value)}; {clause}")
        self.key = key


@dataclass(frozen=True)
class Key:
    """A setting of a config.

    Attributes:
        name: Its full name, such as "OPTIM.LR".
        kind: Its type: bool, int, float, str, or a tuple of one of them; Any where anything will do.
        default: Its default.
        rule: What it takes.
    """

    name: str
    kind: Any
    default: Any
    rule: Rule

    @property
    def entry(self) -> Any:
        """Of a list, the type of its entries; else None."""
        is_list = self.kind in (tuple, list) or typing.get_origin(self.kind) in (tuple, list)
        return next(iter(typing.get_args(self.kind)), Any) if is_list else None

    @property
    def expected(self) -> str:
        """What it takes, in words: type and values."""
        if self.rule.choices and self.entry is None:
            return self.rule.expected()
        words = self.values
        if self.entry is not None:
            kind = f"a list of {LISTS.get(self.entry, 'values, such as [1, 2]')}"
        else:
            kind = KINDS.get(self.kind, "a value")
            if words.startswith("a number "):
                return f"{kind} {words.removeprefix('a number ')}"
        return f"{kind}, {words}" if words else kind

    @property
    def values(self) -> str:
        """Which values it takes, in words; empty if any of its type will do."""
        words = self.rule.expected()
        if self.entry is None or self.rule.words or not words:
            return words
        return f"some of {words.removeprefix('one of ')}" if self.rule.choices else f"each {words}"


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


_kinds: Callable[[Any], dict[str, Any]] = cache(typing.get_type_hints)


def join(section: str, key: str) -> str:
    """Full name of a key of a section; the root's name is empty."""
    return f"{section}.{key}" if section else key


def keys(cls: Any, section: str = "") -> dict[str, Key]:
    """All settings of a class and its sub-sections, by full name, in the order of their declaration.

    Args:
        cls: A settings class, or an instance, whose values are the defaults then.
        section: Its name in the config.
    """
    default = cls() if isinstance(cls, type) else cls
    kinds = _kinds(type(default))
    found: dict[str, Key] = {}
    for field in dataclasses.fields(default):
        name, value = join(section, key_name(field)), getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            found |= keys(value, name)
        else:
            found[name] = Key(name, kinds[field.name], value, field.metadata.get(METADATA, Rule("")))
    return found


def implied(name: str, default: Any) -> Key:
    """A setting that nobody declared: of its default no more than the type is known."""
    return Key(name, Any if default is None else type(default), default, Rule(""))


def defaults(cls: Any) -> dict[str, Any]:
    """Defaults of a settings class, nested, with the keys of the config."""
    default = cls() if isinstance(cls, type) else cls
    values = {key_name(field): getattr(default, field.name) for field in dataclasses.fields(default)}
    return {key: defaults(value) if dataclasses.is_dataclass(value) else value for key, value in values.items()}


def rows(cls: Any, section: str = "") -> list[tuple[str, str, str, str]]:
    """Key, default, what it takes, what it does: for each setting, as text."""
    return [(key.name, _plain(key.default), key.expected, key.rule.help) for key in keys(cls, section).values()]


def _plain(value: Any) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)


def load(cls: type, tree: Any, section: str = "", others: bool = False) -> Any:
    """Make settings of a section of a config.

    Args:
        cls: The settings class.
        tree: The section: a mapping, keys in upper case. What is missing is as by default.
        section: Its name, for errors.
        others: Whether keys that the class does not declare are passed over.

    Returns:
        An instance.

    Raises:
        SettingError: On a value that a setting does not take.
        UserError: On an unknown key.
    """
    return _loaded(cls(), tree, section, others)


def _loaded(default: Any, tree: Any, section: str, others: bool) -> Any:
    fields = {key_name(field): field for field in dataclasses.fields(default)}
    if not hasattr(tree, "items"):
        raise SettingError(section, tree, f"expected a section with the keys {', '.join(fields)}")
    given = dict(tree.items())
    for name in given:
        if name not in fields and not others:
            known = [join(section, key) for key in fields]
            full = join(section, str(name))
            raise UserError(f"unknown config key {full!r}; {did_you_mean(full, known)}")
    kinds = _kinds(type(default))
    values = {}
    for name in [name for name in fields if name in given]:
        field, full = fields[name], join(section, name)
        old = getattr(default, field.name)
        if dataclasses.is_dataclass(old):
            values[field.name] = _loaded(old, given[name], full, others)
        else:
            rule = field.metadata.get(METADATA, Rule(""))
            values[field.name] = checked(Key(full, kinds[field.name], old, rule), given[name])
    made = dataclasses.replace(default, **values)
    misfits: Callable[[], Iterator[tuple[str, str]]] = getattr(made, "misfits", lambda: iter(()))
    for name, clause in misfits():
        raise SettingError(join(section, name), given.get(name, defaults(default)[name]), clause)
    return made


def checked(key: Key, value: Any) -> Any:
    """Return a value as its setting keeps it.

    Raises:
        SettingError: If the setting does not take it.
    """
    if key.kind is Any:
        return value
    if key.entry is not None:
        if not isinstance(value, (list, tuple)):
            raise SettingError(key.name, value, _wrong_type(key, value))
        value = tuple(_entry(key, key.entry, entry, value) for entry in value)
    else:
        value = _entry(key, key.kind, value, value)
    if not key.rule.allows(value):
        raise SettingError(key.name, value, _wrong_value(key, value))
    return value


def _entry(key: Key, kind: Any, entry: Any, value: Any) -> Any:
    """Return a single value as its type keeps it; `value` is what an error shows."""
    if kind is Any and entry is not None:
        kind = type(entry)
    accepted = (int, float) if kind is float else (kind,)
    if kind not in KINDS or type(entry) not in accepted or (kind is str and "\0" in entry):
        raise SettingError(key.name, value, _wrong_type(key, value))
    if kind in LARGEST and not abs(entry) <= LARGEST[kind]:  # NaN is not, either
        raise SettingError(key.name, value, f"expected {key.expected}, and no more than {LARGEST[kind]:.10g}")
    return float(entry) if kind is float else entry


def _wrong_type(key: Key, value: Any) -> str:
    clause = f"expected {key.expected}"
    if key.kind is str and not key.rule.choices and isinstance(value, (bool, int, float)):
        return f"""{clause}; write "'{shown(value)}'" for a text that looks like this"""
    return clause


def _wrong_value(key: Key, value: Any) -> str:
    clause = f"expected {key.values}"
    texts = [value] if isinstance(value, str) else [v for v in value if v not in key.rule.choices] if key.entry else []
    choices = [choice for choice in key.rule.choices if isinstance(choice, str)]
    guess = nearest(texts[0], choices) if texts and isinstance(texts[0], str) else ""
    return f"{clause}; did you mean {guess!r}?" if guess else clause
