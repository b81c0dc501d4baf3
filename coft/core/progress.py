"""What a run says to a person: lines, and bars with the time that is left; and ways to do without them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

said = logging.getLogger("coft.said")  # lines for a person; other loggers of the library are for its log
_shown: ContextVar[bool] = ContextVar("shown", default=True)


@contextmanager
def progress(shown: bool) -> Iterator[None]:
    """Context in which bars are shown, where there is somebody to see them, or not."""
    token = _shown.set(shown)
    try:
        yield
    finally:
        _shown.reset(token)


class AboveBars(logging.StreamHandler):  # no parameter: Python 3.10 takes none
    """Writes bare messages to a stream, above a bar that is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        with tqdm.external_write_mode(file=sys.stderr):
            super().emit(record)


class Marked(logging.Formatter):
    """Messages as they are; those that warn say so, and the report finds them by it."""

    def format(self, record: logging.LogRecord) -> str:
        """Put "Warning: " before what warns."""
        return ("Warning: " if record.levelno >= logging.WARNING else "") + super().format(record)


@contextmanager
def handled(logger: logging.Logger, *handlers: logging.Handler) -> Iterator[None]:
    """Context in which a logger's messages go to some handlers, too, from INFO on."""
    level = logger.level
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


@contextmanager
def lines(shown: bool) -> Iterator[None]:
    """Context in which lines for a person are said: to the log that a program has set up, or on standard error."""
    if not shown:
        yield
        return
    with handled(said, *([] if said.hasHandlers() else [AboveBars()])):
        yield


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Context in which all that the library says is added to a file. Others see of it what they saw before."""
    library = logging.getLogger("coft")
    level, file_handler = (
        library.getEffectiveLevel(),
        logging.FileHandler(path, "a", "utf-8", errors="backslashreplace"),
    )
    file_handler.setFormatter(Marked())
    onward = _Onward()
    onward.addFilter(lambda record: record.levelno >= level or record.name == said.name)
    library.propagate = False
    try:
        with handled(library, file_handler, onward):
            yield
    finally:
        library.propagate = True


class _Onward(logging.Handler):
    """Passes messages to the root logger."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a message."""
        logging.getLogger().handle(record)


def bars_are_seen() -> bool:
    """Whether there is a terminal or a notebook that shows bars."""
    return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())


def bar(items: Iterable[Any] | None = None, title: str = "", total: int | None = None) -> Any:
    """A bar on a terminal or in a notebook.

    Args:
        items: What is gone through; none where `update` is called by hand.
        title: Stands before it.
        total: How many there are, where the items do not tell.
    """
    return tqdm(items, title, total, leave=False, dynamic_ncols=True, disable=not (_shown.get() and bars_are_seen()))
