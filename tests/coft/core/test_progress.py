"""What is heard of long work where no bar can be seen."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from coft.core import progress
from coft.core.progress import lines

log = logging.getLogger("coft.of_a_test")


@contextmanager
def program(monkeypatch: pytest.MonkeyPatch, *handlers: logging.Handler) -> Iterator[io.StringIO]:
    """A program with these handlers of its log, and no terminal. Yields its standard error."""
    error = io.StringIO()
    with monkeypatch.context() as changes:  # pytest has handlers of its own, until the test ends
        changes.setattr(logging.getLogger(), "handlers", list(handlers))
        changes.setattr(sys, "stderr", error)
        yield error


def test_lines_go_to_standard_error_for_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    with program(monkeypatch) as error:
        with lines(True):
            log.info("an epoch")
        log.info("afterwards")
        assert error.getvalue() == "an epoch\n"
        assert not logging.getLogger("coft").handlers


def test_nothing_is_said_unasked_or_beside_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    with program(monkeypatch) as error:
        with lines(False):
            log.info("an epoch")
        monkeypatch.setattr(progress, "bars_are_seen", lambda: True)
        with lines(True):
            log.info("an epoch")
        assert error.getvalue() == ""


def test_a_program_that_has_set_up_logging_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = logging.NullHandler()
    with program(monkeypatch, handler) as error:
        with lines(True):
            log.info("an epoch")
        assert error.getvalue() == "" and logging.getLogger().handlers == [handler]
