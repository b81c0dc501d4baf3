"""What is heard of long work: lines for a person, and a log file with all."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coft.core.progress import lines, log_file, user_log

log = logging.getLogger("coft.of_a_test")


@contextmanager
def program(monkeypatch: pytest.MonkeyPatch, *handlers: logging.Handler) -> Iterator[io.StringIO]:
    """A program with these handlers of its log, and no terminal. Yields its standard error."""
    error = io.StringIO()
    loggers = {logging.getLogger(): logging.WARNING, logging.getLogger("coft"): logging.NOTSET}  # as they are at first
    before = {logger: logger.level for logger in loggers}
    for logger, level in loggers.items():  # a test before may have asked for more
        logger.setLevel(level)
    with monkeypatch.context() as changes:  # pytest has handlers of its own, until the test ends
        changes.setattr(logging.getLogger(), "handlers", list(handlers))
        changes.setattr(sys, "stderr", error)
        yield error
    for logger, level in before.items():
        logger.setLevel(level)


def test_lines_for_a_person_go_to_standard_error_for_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    with program(monkeypatch) as error:
        with lines(True):
            user_log.info("for a person")
            log.info("for the log")
        user_log.info("afterwards")
        assert error.getvalue() == "for a person\n"
        assert not logging.getLogger("coft").handlers and not user_log.handlers


def test_nothing_is_said_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    with program(monkeypatch) as error, lines(False):
        user_log.info("for a person")
    assert error.getvalue() == ""


def test_a_program_that_has_set_up_logging_gets_the_lines_in_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    with program(monkeypatch, handler) as error:
        with lines(True):
            user_log.info("for a person")
            log.info("for the log")  # less than a program asks for that has set no level
        assert error.getvalue() == "" and logging.getLogger().handlers == [handler]
    assert stream.getvalue() == "for a person\n"


def test_a_log_file_has_all_and_others_see_what_they_saw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stream, path = io.StringIO(), tmp_path / "log.txt"
    path.write_text("an earlier part\n")
    with program(monkeypatch, logging.StreamHandler(stream)):
        with lines(True), log_file(path):
            user_log.info("for a person")
            log.info("for the log")
            log.warning("of note")
        log.info("afterwards")
    assert path.read_text() == "an earlier part\nfor a person\nfor the log\nWarning: of note\n"
    assert stream.getvalue() == "for a person\nof note\n"
    assert logging.getLogger("coft").propagate and not logging.getLogger("coft").handlers
