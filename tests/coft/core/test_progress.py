"""Progress lines on standard error, and a log file with all records."""

from __future__ import annotations

import fcntl
import io
import logging
import os
import pty
import struct
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coft.core.progress import bars_are_seen, lines, log_file, user_log

log = logging.getLogger("coft.of_a_test")


@contextmanager
def program_with_handlers(monkeypatch: pytest.MonkeyPatch, *handlers: logging.Handler) -> Iterator[io.StringIO]:
    """A program with these log handlers and no terminal. Yields its standard error."""
    error = io.StringIO()
    loggers = {logging.getLogger(): logging.WARNING, logging.getLogger("coft"): logging.NOTSET}  # the defaults
    before = {logger: logger.level for logger in loggers}
    for logger, level in loggers.items():  # earlier tests may have changed them
        logger.setLevel(level)
    with monkeypatch.context() as changes:  # hides the handlers of pytest
        changes.setattr(logging.getLogger(), "handlers", list(handlers))
        changes.setattr(sys, "stderr", error)
        yield error
    for logger, level in before.items():
        logger.setLevel(level)


def test_user_lines_go_to_standard_error_within_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    with program_with_handlers(monkeypatch) as error:
        with lines(True):
            user_log.info("for a person")
            log.info("for the log")
        user_log.info("afterwards")
        assert error.getvalue() == "for a person\n"
        assert not logging.getLogger("coft").handlers and not user_log.handlers


def test_nothing_is_printed_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with program_with_handlers(monkeypatch) as error, lines(False):
        user_log.info("for a person")
    assert error.getvalue() == ""


def test_user_lines_go_to_the_handlers_of_a_program_with_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    with program_with_handlers(monkeypatch, handler) as error:
        with lines(True):
            user_log.info("for a person")
            log.info("for the log")  # below the default level
        assert error.getvalue() == "" and logging.getLogger().handlers == [handler]
    assert stream.getvalue() == "for a person\n"


def test_a_log_file_has_all_records_and_other_handlers_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stream, path = io.StringIO(), tmp_path / "log.txt"
    path.write_text("an earlier part\n")
    with program_with_handlers(monkeypatch, logging.StreamHandler(stream)):
        with lines(True), log_file(path):
            user_log.info("for a person")
            log.info("for the log")
            log.warning("of note")
        log.info("afterwards")
    assert path.read_text() == "an earlier part\nfor a person\nfor the log\nWarning: of note\n"
    assert stream.getvalue() == "for a person\nof note\n"
    assert logging.getLogger("coft").propagate and not logging.getLogger("coft").handlers


@pytest.mark.parametrize(("columns", "seen"), [(0, False), (80, True)])
def test_a_terminal_without_width_shows_no_bars(columns: int, seen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(terminal, "w") as stream, os.fdopen(master):
        monkeypatch.setattr(sys, "stderr", stream)
        assert bars_are_seen() == seen
