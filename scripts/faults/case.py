"""A case of the campaign: what is done, and what is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from .scene import Scene


class Wrong(Exception):
    """What a case does when a run has done something that is not right, without a word."""


class Right(Enum):
    """What is right."""

    FINE = "it works"
    REFUSED = "one line that names the input and says what to do"
    EITHER = "it works, or is refused in such a line"


class Found(Enum):
    """What was found; the columns of the table. All but the first two are faults of the project."""

    CORRECT = "correct"
    CLEAN = "clean error"
    TRACEBACK = "traceback"
    SILENT = "wrong and silent"
    REFUSED = "wrongly refused"
    HANG = "hang"
    HALF = "half-written"
    SECRET = "secret printed"


@dataclass(frozen=True)
class Case:
    """A bad input, or a fault.

    Attributes:
        category: What it is about; a row of the table.
        name: What it is, in a few words.
        run: Does it in a scene; raises `Wrong` where the outcome is not right.
        right: What is right.
        names: What a clean error has to name: the input. Any one of these texts.
        seconds: After which it counts as hanging.
    """

    category: str
    name: str
    run: Callable[[Scene], object]
    right: Right = Right.EITHER
    names: tuple[str, ...] = ()
    seconds: float = 30.0


@dataclass(frozen=True)
class Result:
    """What came of a case.

    Attributes:
        case: The case.
        found: What was found.
        line: The message, if there was an error.
    """

    case: Case
    found: Found
    line: str = ""

    @property
    def fault(self) -> bool:
        """Whether the project did wrong."""
        return self.found not in (Found.CORRECT, Found.CLEAN)
