"""Forms: schemas of objects from outside the program, which give the type and bounds of each of their parts.

A form is declared beside the code that reads the object. `Schema.check` validates a value, and the fault tests generate
their cases from forms. Types are strict: True is not a number, and 1.0 is not a whole number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .sanitize import has_controls
from .settings import shown

NAME_MAX, PATH_MAX = 255, 4096  # bytes of a file name, and of a path
LARGEST = 2**53  # largest integer that JSON preserves in all languages


class SchemaError(ValueError):
    """Error of a value that does not match its form.

    Args:
        reason: Actual value and expected form; a clause whose subject is `where`.
        where: Name of the part that does not match.
    """

    def __init__(self, reason: str, where: str = "") -> None:
        super().__init__(f"{where} {reason}".strip())
        self.reason, self.where = reason, where

    def within(self, name: str) -> SchemaError:
        """Return the same error, with its part placed inside the part `name` of a larger object."""
        return SchemaError(self.reason, f"{name}{'.' if self.where and self.where[0] != '[' else ''}{self.where}")


class Schema:
    """Schema of a value. Its text, `str(schema)`, describes the valid values in error messages."""

    def check(self, value: Any, where: str = "") -> None:
        """Check that a value matches the form.

        Args:
            value: The value.
            where: Name of the value, for the error message.

        Raises:
            SchemaError: If it does not.
        """
        try:
            self._compare(value)
        except SchemaError as error:
            raise error.within(where) if where else error from None

    def matches(self, value: Any) -> bool:
        """Return whether a value matches the form."""
        try:
            self._compare(value)
        except SchemaError:
            return False
        return True

    def misfit(self, value: Any) -> SchemaError:
        """Return the error of a value that does not match."""
        return SchemaError(f"is {' '.join(shown(value).split())}; expected {self}")

    def _compare(self, value: Any) -> None:
        if not self._matches(value):
            raise self.misfit(value)

    def _matches(self, value: Any) -> bool:
        raise NotImplementedError


@dataclass(frozen=True)
class Number(Schema):
    """A number in the closed range from `low` to `high`, an integer if `whole`. NaN never matches."""

    low: float
    high: float = LARGEST
    whole: bool = False

    def __str__(self) -> str:
        return f"a {'whole ' if self.whole else ''}number from {self.low:.10g} to {self.high:.10g}"

    def _matches(self, value: Any) -> bool:
        return type(value) in ((int,) if self.whole else (int, float)) and self.low <= value <= self.high


def whole(low: int, high: int = LARGEST) -> Number:
    """Return the form of an integer in a closed range."""
    return Number(low, high, whole=True)


@dataclass(frozen=True)
class Flag(Schema):
    """True or False."""

    def __str__(self) -> str:
        return "true or false"

    def _matches(self, value: Any) -> bool:
        return type(value) is bool


@dataclass(frozen=True)
class Text(Schema):
    """A text of `least` to `longest` characters, one of `choices` if there are any.

    Control characters are not allowed, except line breaks and other whitespace if `lines`.
    """

    longest: int = 1000
    least: int = 0
    choices: tuple[str, ...] = ()
    lines: bool = False

    def __str__(self) -> str:
        if self.choices:
            return f"one of {', '.join(map(repr, self.choices))}"
        return f"a text of {self.least} to {self.longest:,} characters, without control characters"

    def _matches(self, value: Any) -> bool:
        if not isinstance(value, str) or (self.choices and value not in self.choices):
            return False
        text = " ".join(value.split()) if self.lines else value
        return self.least <= len(text) and len(value) <= self.longest and not has_controls(text)


@dataclass(frozen=True)
class PathText(Schema):
    """A text that can be the path of a file or folder. Undecodable bytes are allowed."""

    def __str__(self) -> str:
        return f"a path whose names have at most {NAME_MAX} bytes"

    def _matches(self, value: Any) -> bool:
        try:
            data = os.fsencode(value) if isinstance(value, str) else b""
            return 0 < len(data) <= PATH_MAX and b"\0" not in data and max(map(len, data.split(b"/"))) <= NAME_MAX
        except UnicodeEncodeError:  # a lone surrogate
            return False


@dataclass(frozen=True)
class Nothing(Schema):
    """The null value."""

    def __str__(self) -> str:
        return "nothing (null)"

    def _matches(self, value: Any) -> bool:
        return value is None


@dataclass(frozen=True)
class Anything(Schema):
    """Any value; its reader must assume nothing about it."""

    def __str__(self) -> str:
        return "anything"

    def _matches(self, value: Any) -> bool:
        return True


@dataclass(frozen=True)
class Either(Schema):
    """A value that matches at least one of several forms."""

    forms: tuple[Schema, ...]

    def __str__(self) -> str:
        return ", or ".join(str(form) for form in self.forms)

    def _matches(self, value: Any) -> bool:
        return any(form.matches(value) for form in self.forms)


def maybe(form: Schema) -> Either:
    """Return the form of a value that may also be null."""
    return Either((Nothing(), form))


@dataclass(frozen=True)
class List(Schema):
    """A list of values of one form.

    Attributes:
        of: Schema of the entries.
        least: Minimum number of entries.
        most: Maximum number of entries.
        key: Function that maps an entry to a key, which must be unique in the list.
    """

    of: Schema
    least: int = 0
    most: int = 1_000_000
    key: Callable[[Any], Hashable] | None = None

    def __str__(self) -> str:
        count = self.least if self.least == self.most else f"{self.least:,} to {self.most:,}"
        return f"a list of {count}{' different ones' if self.key else ''}, each {self.of}"

    def _compare(self, value: Any) -> None:
        if type(value) not in (list, tuple) or not self.least <= len(value) <= self.most:
            raise self.misfit(value)
        keys = set[Hashable]()
        for number, entry in enumerate(value):
            try:
                self.of._compare(entry)
            except SchemaError as error:
                raise error.within(f"[{number}]") from None
            if self.key and (key := self.key(entry)) in keys:
                raise SchemaError(f"{shown(key)} is listed twice; expected {self}")
            if self.key:
                keys.add(key)


@dataclass(frozen=True)
class Row(Schema):
    """A list with a form for each position."""

    forms: tuple[Schema, ...]

    def __str__(self) -> str:
        return f"[{', '.join(str(form) for form in self.forms)}]"

    def _compare(self, value: Any) -> None:
        if type(value) not in (list, tuple) or len(value) != len(self.forms):
            raise self.misfit(value)
        for form, entry in zip(self.forms, value, strict=True):
            form._compare(entry)


@dataclass(frozen=True)
class Record(Schema):
    """An object with named parts.

    Attributes:
        parts: Forms of the required parts, by name.
        optional: Forms of the optional parts, by name.
        others: Schema of parts with any other name; None if other names are not allowed.
        names: Schema of the names.
        most: Maximum number of parts.
    """

    parts: Mapping[str, Schema] = field(default_factory=dict)
    optional: Mapping[str, Schema] = field(default_factory=dict)
    others: Schema | None = None
    names: Schema = Text()
    most: int = 100_000

    def __str__(self) -> str:
        return f"an object with {', '.join(list(self.parts)[:4])}" if self.parts else "an object"

    def _compare(self, value: Any) -> None:
        if not isinstance(value, Mapping) or len(value) > self.most:
            raise self.misfit(value)
        if missing := [name for name in self.parts if name not in value]:
            raise SchemaError(f"has no {missing[0]!r}")
        for name, entry in value.items():
            form = self.parts.get(name) or self.optional.get(name) or self.others
            if form is None or not self.names.matches(name):
                raise SchemaError(f"has {shown(name)}, which is unknown")
            try:
                form._compare(entry)
            except SchemaError as error:
                raise error.within(str(name)) from None


def mapping(of: Schema, most: int = 100_000, names: Schema = Text()) -> Record:
    """Return the form of an object whose parts have any names and the same form."""
    return Record(others=of, names=names, most=most)


def numbers(low: float, high: float, count: int) -> List:
    """Return the form of a list of `count` numbers in a closed range."""
    return List(Number(low, high), count, count)
