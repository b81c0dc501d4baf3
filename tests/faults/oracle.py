"""What a case is, and what comes of it: the one place that says which outcome is right and which message helps."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coft.core.errors import UserError
from coft.core.exit_codes import as_user_error

if TYPE_CHECKING:
    from .scene import Scene

SECRET = "sk-never-to-be-shown"  # in the environment of all cases
MARK = "a-program-ran"  # file that programs within inputs make
REMEDIES = ("; ", "expected", "did you mean", "known are", "known ones", "--help says", "give ", "see to ")
LONGEST = 800  # characters of a message
LEFTOVERS = ("*.tmp", ".*.tmp.*", "*.part", ".extract-*")  # what was not written to its end


class Wrong(Exception):
    """Raised by a case where the project has done, without a word, what is not right."""


class Hang(BaseException):
    """The time of a case is over."""


class Right(Enum):
    """What is right."""

    FINE = "it works"
    REFUSED = "exit code 2 and one line that names the input and says what to do"
    EITHER = "it works, or is refused in such a line"


FINE, REFUSED, EITHER = Right


class Found(Enum):
    """What came of a case; the columns of the table. All but the first two are faults of the project."""

    CORRECT = "correct"
    CLEAN = "clean error"
    TRACEBACK = "traceback"
    SILENT = "wrong and silent"
    REFUSED = "wrongly refused"
    HANG = "hang"
    HALF = "half-written"
    SECRET = "secret printed"
    POOR = "poor message"


GOOD = (Found.CORRECT, Found.CLEAN)


@dataclass(frozen=True)
class Case:
    """A bad input, or a fault.

    Attributes:
        category: What it is about; a row of the table.
        name: What it is, in a few words.
        run: Does it in a scene; raises `Wrong` where the outcome is not right.
        right: What is right.
        names: What a refusal has to name: the input. Any one of these texts.
        seconds: After which it counts as hanging.
    """

    category: str
    name: str
    run: Callable[[Scene], object]
    right: Right = Right.EITHER
    names: tuple[str, ...] = ()
    seconds: float = 60.0


@dataclass(frozen=True)
class Result:
    """What came of a case, with the message if there was an error."""

    case: Case
    found: Found
    line: str = ""

    @property
    def fault(self) -> bool:
        """Whether the project did wrong."""
        return self.found not in GOOD


def play(case: Case, scene: Scene) -> Result:
    """Play a case in its scene's folder, and judge what came of it."""
    output = io.StringIO()
    with heard(output, scene.place):
        found, line = outcome(case, scene)
    if SECRET in output.getvalue() + line:
        found = Found.SECRET
    elif (scene.place / MARK).exists():
        found, line = Found.SILENT, "a program within an input has run"
    elif found in GOOD and (left := [path for pattern in LEFTOVERS for path in scene.place.rglob(pattern)]):
        found, line = Found.HALF, f"left: {left[0].name}"
    return Result(case, found, line)


def outcome(case: Case, scene: Scene) -> tuple[Found, str]:
    """What a case comes to, with the message of an error."""
    try:
        with limited(case.seconds):
            case.run(scene)
    except Hang:
        return Found.HANG, f"not done after {case.seconds:.0f} s"
    except Wrong as error:
        return Found.SILENT, str(error)
    except Exception as error:
        refusal = as_user_error(error)
        if refusal is None:
            return Found.TRACEBACK, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if case.right is Right.FINE:
            return Found.REFUSED, refusal.line
        flaws = flaws_of(refusal.line, case.names)
        return (Found.POOR, f"{'; '.join(flaws)}: {refusal.line}") if flaws else (Found.CLEAN, refusal.line)
    return (Found.SILENT, "accepted without a word") if case.right is Right.REFUSED else (Found.CORRECT, "")


def flaws_of(line: str, names: tuple[str, ...] = ()) -> list[str]:
    """Why the message of a refusal does not help; nothing with most."""
    flaws = {
        "does not name the input": names and not any(name in line for name in names),
        "does not say what to do": not any(words in line for words in REMEDIES),
        "is more than a line, or not escaped": not line.isprintable() or len(line) > LONGEST,
    }
    return [flaw for flaw, there in flaws.items() if there]


def check_outcome(code: int, errors: str) -> None:
    """Judge how a command has ended.

    Args:
        code: Its exit code.
        errors: What it wrote to standard error.

    Raises:
        UserError: With its line, if it refused its input as it should.
        Wrong: If it ended neither so nor well.
    """
    lines = [line.removeprefix("error: ") for line in errors.splitlines() if line.startswith("error: ")]
    if "Traceback" in errors or code not in (0, 2) or (code == 2 and len(lines) != 1):
        raise Wrong(
            f"exit code {code}, {len(lines)} lines of error, at last: {(errors.splitlines() or [''])[-1][:200]}"
        )
    if code:
        raise UserError(lines[0])


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Context that ends after some seconds."""

    def end(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def heard(output: io.StringIO, folder: Path) -> Iterator[None]:
    """Context whose output, errors and log go to a text, and where relative paths are below a folder."""
    root, before = logging.getLogger(), Path.cwd()
    handlers, level = root.handlers[:], root.level
    root.handlers = [logging.StreamHandler(output)]
    root.setLevel(logging.INFO)
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            yield
    finally:
        os.chdir(before)
        root.handlers = handlers
        root.setLevel(level)
