"""How a method declares its settings: once, as fields of a frozen dataclass.

A field says its default, what it does, and which values make sense. Everything else is made of that: the section of the
config, the check of what a user wrote, the line of an error, the table in the docs. A field that is such a class itself
(`field(default_factory=...)`) is a section of its own in the config.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

METADATA = "setting"


@dataclass(frozen=True)
class Rule:
    """What a setting does, and which values it takes.

    Attributes:
        help: One line for people.
        at_least: Smallest number.
        above: Number that it must exceed.
        at_most: Largest number.
        choices: All values that there are, if they can be named.
    """

    help: str
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    choices: tuple[Any, ...] = ()

    def expected(self) -> str:
        """What values the setting takes, in words; empty if any of its type will do."""
        if self.choices:
            return "one of " + ", ".join(map(str, self.choices))
        if self.at_least is not None and self.at_most is not None:
            return f"a number from {self.at_least:g} to {self.at_most:g}"
        if self.at_least is not None:
            return f"at least {self.at_least:g}"
        if self.above is not None:
            return f"a number above {self.above:g}"
        return "" if self.at_most is None else f"at most {self.at_most:g}"

    def allows(self, value: Any) -> bool:
        """Whether a value of the right type makes sense. NaN and infinity never do."""
        if self.choices:
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return True
        finite = abs(value) < float("inf")  # False for NaN, too
        low = self.at_least is None or value >= self.at_least
        high = self.at_most is None or value <= self.at_most
        return finite and low and high and (self.above is None or value > self.above)


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
