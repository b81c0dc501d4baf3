"""Test cases and their outcomes: the only module that decides which outcome is correct and which message is helpful."""

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
from coft.core.exit_codes import INTERRUPTED, as_user_error

if TYPE_CHECKING:
    from .workspace import Workspace

SECRET = "sk-never-to-be-shown"  # API key in the environment of all cases
CANARY = "a-program-ran"  # file that code in a malicious input creates
REMEDIES = ("; ", "expected", "did you mean", "known are", "known ones", "--help says", "give ", "see to ")
LONGEST_MESSAGE = 800
TEMPORARY_FILES = ("*.tmp", ".*.tmp.*", "*.part", ".extract-*")


class WrongResult(Exception):
    """Raised by a case if a command succeeds with a wrong result."""


class Timeout(BaseException):
    """The time limit of a case is exceeded."""


class Expected(Enum):
    """Expected outcome of a case."""

    ACCEPTED = "accepted"
    REFUSED = "refused"  # exit code 2, and one line that names the input and says what to do
    EITHER = "either"


ACCEPTED, REFUSED, EITHER = Expected


class Outcome(Enum):
    """Outcome of a case, a column of the table."""

    CORRECT = "correct"
    CLEAN_ERROR = "clean error"
    FAULT = "fault"  # of the project


CORRECT, CLEAN_ERROR, FAULT = Outcome
Verdict = tuple[Outcome, str]  # and the error message, or what is wrong


@dataclass(frozen=True)
class Case:
    """A bad input or a fault.

    Attributes:
        category: Row of the table.
        name: Short description.
        run: Function that runs the case in a workspace, and raises `WrongResult` after a wrong result.
        expected: Expected outcome.
        input_names: Texts of which an error message must contain one.
        seconds: Time limit.
    """

    category: str
    name: str
    run: Callable[[Workspace], object]
    expected: Expected = EITHER
    input_names: tuple[str, ...] = ()
    seconds: float = 60.0


def run_case(case: Case, workspace: Workspace) -> Verdict:
    """Run a case in the folder of its workspace, and judge its outcome, output and remaining files."""
    output = io.StringIO()
    with captured(output, workspace.folder):
        outcome, message = outcome_of(case, workspace)
    if SECRET in output.getvalue() + message:
        return FAULT, "a secret was printed"
    if (workspace.folder / CANARY).exists():
        return FAULT, "code in an input was executed"
    rest = [path.name for glob in TEMPORARY_FILES for path in workspace.folder.rglob(glob)]
    return (FAULT, f"remains: {rest[0]}") if rest and outcome is not FAULT else (outcome, message)


def outcome_of(case: Case, workspace: Workspace) -> Verdict:
    """Run a case, and judge how it ends."""
    try:
        with time_limit(case.seconds):
            case.run(workspace)
    except Timeout:
        return FAULT, f"not finished after {case.seconds:.0f} s"
    except WrongResult as error:
        return FAULT, f"wrong result: {error}"
    except Exception as error:
        refusal = as_user_error(error)
        if refusal is None:
            return FAULT, f"traceback: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        flaws = ["refuses valid input"] if case.expected is ACCEPTED else message_flaws(refusal.line, case.input_names)
        return (FAULT, f"{'; '.join(flaws)}: {refusal.line}") if flaws else (CLEAN_ERROR, refusal.line)
    return (FAULT, "invalid input is accepted") if case.expected is REFUSED else (CORRECT, "")


def message_flaws(line: str, input_names: tuple[str, ...] = ()) -> list[str]:
    """List the flaws of an error message."""
    flaws = {
        "does not name the input": input_names and not any(name in line for name in input_names),
        "does not say what to do": not any(words in line for words in REMEDIES),
        "is not one short printable line": not line.isprintable() or len(line) > LONGEST_MESSAGE,
    }
    return [flaw for flaw, is_present in flaws.items() if is_present]


def check_exit(code: int, errors: str) -> None:
    """Check the exit code and standard error of a command.

    Raises:
        UserError: If it refused its input with exit code 2 and one line.
        WrongResult: If it failed in any other way.
        KeyboardInterrupt: If Ctrl-C stopped it; the campaign must stop, too.
    """
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    lines = [line.removeprefix("error: ") for line in errors.splitlines() if line.startswith("error: ")]
    if "Traceback" in errors or code not in (0, 2) or (code == 2 and len(lines) != 1):
        last = (errors.splitlines() or [""])[-1][:200]
        raise WrongResult(f"exit code {code}, {len(lines)} error lines, last line: {last}")
    if code:
        raise UserError(lines[0])


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Context that raises `Timeout` after some seconds."""

    def end(*_: Any) -> None:
        raise Timeout

    previous = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextlib.contextmanager
def captured(output: io.StringIO, folder: Path) -> Iterator[None]:
    """Context with a working directory, whose output, errors and log are captured."""
    root, previous_folder = logging.getLogger(), Path.cwd()
    handlers, level = root.handlers[:], root.level
    root.handlers = [logging.StreamHandler(output)]
    root.setLevel(logging.INFO)
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            yield
    finally:
        os.chdir(previous_folder)
        root.handlers = handlers
        root.setLevel(level)
