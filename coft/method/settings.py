"""How a method declares its settings: once, as fields of a frozen dataclass.

A field says its default, what it does, and which values make sense. Everything else is made of that: the section of the
config, the check of what a user wrote, the line of an error, the table in the docs (coft/runtime/settings.py). A field
that is such a class itself (`field(default_factory=...)`) is a section of its own in the config. What depends on
several fields is said by a method `misfits`, which yields keys of the section, each with what was expected instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
