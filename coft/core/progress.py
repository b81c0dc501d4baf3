"""Output for the user: messages, and progress bars with the remaining time; both can be switched off."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

user_log = logging.getLogger("coft.said")  # messages for the user; other loggers of the library are for the log file
_shown: ContextVar[bool] = ContextVar("shown", default=True)


@contextmanager
def progress(shown: bool) -> Iterator[None]:
    """Context in which progress bars are enabled or disabled. They need a terminal or a notebook in any case."""
    token = _shown.set(shown)
    try:
        yield
    finally:
        _shown.reset(token)


class TqdmHandler(logging.StreamHandler):  # no type parameter: Python 3.10 does not accept one
    """Stream handler that writes messages above an active progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        with tqdm.external_write_mode(file=sys.stderr):
            super().emit(record)


class WarningPrefix(logging.Formatter):
    """Formatter that marks warnings, by which the report finds them, and leaves other messages as they are."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a message, with the prefix "Warning: " from the level WARNING on."""
        return ("Warning: " if record.levelno >= logging.WARNING else "") + super().format(record)


@contextmanager
def handled(logger: logging.Logger, *handlers: logging.Handler) -> Iterator[None]:
    """Context in which handlers are added to a logger, with level INFO. They are closed at its end."""
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
    """Context in which messages for the user are shown: in the log that a program has set up, or on standard error."""
    if not shown:
        yield
        return
    with handled(user_log, *([] if user_log.hasHandlers() else [TqdmHandler()])):
        yield


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Context in which the library's messages from INFO on are appended to a file.

    The root logger receives the same messages as without the file: those from its level on, and those for the user
    unless they are off.
    """
    library = logging.getLogger("coft")
    level, to_user = library.getEffectiveLevel(), user_log.isEnabledFor(logging.INFO)
    file_handler = logging.FileHandler(path, "a", "utf-8", errors="backslashreplace")
    file_handler.setFormatter(WarningPrefix())
    onward = _ForwardToRoot()
    onward.addFilter(lambda record: record.levelno >= level or (to_user and record.name == user_log.name))
    library.propagate = False
    try:
        with handled(library, file_handler, onward):
            yield
    finally:
        library.propagate = True


class _ForwardToRoot(logging.Handler):
    """Handler that passes messages on to the root logger."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a message."""
        logging.getLogger().handle(record)


def bars_are_seen() -> bool:
    """Return whether there is a notebook, or a terminal of some width, to show progress bars."""
    if "ipykernel" in sys.modules:
        return True
    if sys.stderr is None or not sys.stderr.isatty():
        return False
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0  # 0: a terminal that a program imitates
    except (OSError, ValueError):
        return True


def bar(items: Iterable[Any] | None = None, title: str = "", total: int | None = None) -> Any:
    """Return a tqdm progress bar, which is shown only on a terminal or in a notebook.

    Args:
        items: Items to iterate over; None if `update` is called by hand.
        title: Text in front of the bar.
        total: Number of items, if they have no length.
    """
    shown = _shown.get() and bars_are_seen()
    return tqdm(items, title, total, leave=False, dynamic_ncols=True, disable=not shown)
