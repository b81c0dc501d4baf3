"""Playing cases, and telling what came of them."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

from coft.core.exit_codes import as_user_error

from .case import Case, Found, Result, Right, Wrong
from .scene import SECRET, Scene

LEFTOVERS = ("*.tmp", ".*.tmp.*", "*.part", ".extract-*")  # of what was not written to its end


class Hang(BaseException):
    """The time of a case is over."""


def play(cases: Iterable[Case], shared: Path) -> Iterator[Result]:
    """Play cases, one after the other, each in a folder of its own.

    Args:
        cases: The cases.
        shared: Folder for what they share.
    """
    os.environ["OPENAI_API_KEY"] = SECRET
    for case in cases:
        place = Path(tempfile.mkdtemp(prefix="case-", dir=shared))
        try:
            yield play_one(case, Scene(shared, place))
        finally:
            shutil.rmtree(place, ignore_errors=True)


def play_one(case: Case, scene: Scene) -> Result:
    """Play one case."""
    said = io.StringIO()
    with heard(said):
        found, line = outcome(case, scene)
    if SECRET in said.getvalue() or SECRET in line:
        return Result(case, Found.SECRET, line)
    if found in (Found.CORRECT, Found.CLEAN) and (left := leftovers(scene.place)):
        return Result(case, Found.HALF, f"left: {left[0].name}")
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
        known = as_user_error(error)
        if known is None:
            return Found.TRACEBACK, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return (Found.REFUSED if case.right is Right.FINE else Found.CLEAN), known.line
    return (Found.SILENT, "accepted without a word") if case.right is Right.REFUSED else (Found.CORRECT, "")


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Context that ends after some seconds."""

    def over(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def heard(said: io.StringIO) -> Iterator[None]:
    """Context whose output, errors and log go to a text."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = [logging.StreamHandler(said)]
    root.setLevel(logging.INFO)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            yield
    finally:
        root.handlers = handlers
        root.setLevel(level)


def leftovers(place: Path) -> list[Path]:
    """What was not written to its end."""
    return [path for pattern in LEFTOVERS for path in place.rglob(pattern)]
