"""A failing command prints one line and has an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from coft.core.errors import UserError
from coft.core.exit_codes import as_user_error, guarded
from coft.core.files import replacing
from coft.images.reading import UnreadableImage

ErrorLine = Callable[[Callable[[], object]], str]


@pytest.fixture
def error_line(capsys: pytest.CaptureFixture[str]) -> ErrorLine:
    """Run a command that must fail with exit code 2; returns its error line."""

    def call(fail: Callable[[], object]) -> str:
        assert guarded(lambda: int(bool(fail()))) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")

    return call


def raising(error: BaseException) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


def test_a_system_error_names_the_file_and_a_remedy(error_line: ErrorLine, tmp_path: Path) -> None:
    line = error_line((tmp_path / ("x" * 300)).touch)
    assert "xxx: File name too long; give a shorter path" in line
    assert error_line((tmp_path / "none").read_bytes).startswith(f"{tmp_path / 'none'}: No such file")

    def write() -> None:
        with replacing(tmp_path / "table.csv") as draft:
            draft.touch()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert error_line(write).startswith(f"{tmp_path / 'table.csv'}: No space left on device; make room")
    assert not list(tmp_path.iterdir())


def test_too_little_memory_is_reported(error_line: ErrorLine) -> None:
    assert "not enough memory" in error_line(raising(MemoryError()))
    assert "not enough memory" in error_line(lambda: torch.empty(1 << 60))


def test_missing_resources_are_reported_with_a_remedy(error_line: ErrorLine) -> None:
    killed = "DataLoader worker (pid 7) is killed by signal: Bus error. Insufficient shared memory (shm)"
    assert "set DATALOADER.NUM_WORKERS 0" in error_line(raising(RuntimeError(killed)))
    full = "[enforce fail at inline_container.cc:672] . unexpected pos 958016 vs 957904"
    assert "make room on the disk" in error_line(raising(RuntimeError(full)))
    assert "ulimit -u" in error_line(raising(RuntimeError("can't start new thread")))


def test_an_unexpected_error_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="bug"):
        guarded(lambda: int(bool(raising(RuntimeError("bug"))())))


def test_an_interrupt_prints_how_to_resume(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: int(bool(raising(KeyboardInterrupt())())), "stopped") == 130
    assert capsys.readouterr().err == "\nstopped\n"


def test_control_characters_are_escaped_and_long_lines_shortened(error_line: ErrorLine) -> None:
    name = "a\x1b[31m\nb\r\u202ec\udcff"
    assert error_line(raising(UserError(f"{name}: wrong; mend it"))) == r"a\x1b[31m\nb\r\u202ec\udcff: wrong; mend it"
    long = error_line(raising(UserError(f"{'x' * 9999}; mend it")))
    assert len(long) < 800 and long.endswith("; mend it")


def test_secrets_are_hidden(error_line: ErrorLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-first\nsecond-half")
    message = f"refused: {os.environ['OPENAI_API_KEY']!r}, {b'Bearer sk-first'!r}, second-half"
    message += ", https://me:p@ss/w0rd@example.org/v1 and me@example.org"
    line = error_line(raising(UserError(message)))
    assert not any(secret in line for secret in ("sk-first", "second-half", "p@ss", "w0rd", "me:"))
    assert "https://***@example.org/v1 and me@example.org" in line


@pytest.mark.parametrize("kind", [UserError, UnreadableImage])
def test_an_error_of_a_worker_has_its_original_message(error_line: ErrorLine, kind: type[UserError]) -> None:
    caught = f'Caught {kind.__name__} in worker.\nOriginal Traceback (most recent call last):\n  File "x"\n'
    assert error_line(raising(kind(f"{caught}{kind.__module__}.{kind.__name__}: image a cannot be read"))) == (
        "image a cannot be read"
    )


def test_a_path_that_cannot_be_resolved_is_reported(error_line: ErrorLine, tmp_path: Path) -> None:
    loop = f"Symlink loop from {str(tmp_path / 'loop')!r}"
    assert error_line(raising(RuntimeError(loop))) == f"{loop}; give a path that ends at a file or folder"
    assert "nobody of the name after a ~" in error_line(Path("~nobody-of-this-name/x").expanduser)


def test_a_name_outside_the_locale_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    error = UnicodeEncodeError("ascii", "f\u00fc\u00dfe", 1, 3, "ordinal not in range(128)")
    assert as_user_error(error) is None
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    user_error = as_user_error(error)
    assert user_error and user_error.line == r"'f\xfc\xdfe': this locale has no such characters; set PYTHONUTF8=1"
