"""Whatever ends a command is one line that can be shown, and an exit code."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from coft.core.errors import UserError
from coft.core.exit_codes import as_user_error, guarded
from coft.core.files import replacing
from coft.images.reading import UnreadableImage

End = Callable[[Callable[[], object]], str]


@pytest.fixture
def ends(capsys: pytest.CaptureFixture[str]) -> End:
    """Let a command fail with exit code 2; returns its one line."""

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


def test_what_the_system_refuses_is_a_line_with_the_file_and_a_remedy(ends: End, tmp_path: Path) -> None:
    line = ends((tmp_path / ("x" * 300)).touch)
    assert "xxx: File name too long; give a shorter path" in line
    assert ends((tmp_path / "none").read_bytes).startswith(f"{tmp_path / 'none'}: No such file")

    def write() -> None:
        with replacing(tmp_path / "table.csv") as draft:
            draft.touch()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert (
        ends(write) == f"{tmp_path / 'table.csv'}: No space left on device; make room, and give the same command again"
    )
    assert not list(tmp_path.iterdir())


def test_too_little_memory_is_a_line(ends: End) -> None:
    assert "not enough memory" in ends(raising(MemoryError()))
    assert "not enough memory" in ends(lambda: torch.empty(1 << 60))


def test_what_the_machine_lacks_is_a_line(ends: End) -> None:
    killed = "DataLoader worker (pid 7) is killed by signal: Bus error. Insufficient shared memory (shm)"
    assert "set DATALOADER.NUM_WORKERS 0" in ends(raising(RuntimeError(killed)))
    full = "[enforce fail at inline_container.cc:672] . unexpected pos 958016 vs 957904"
    assert "make room on the disk" in ends(raising(RuntimeError(full)))
    assert "ulimit -u" in ends(raising(RuntimeError("can't start new thread")))


def test_our_own_mistakes_keep_their_traceback() -> None:
    with pytest.raises(RuntimeError, match="ours"):
        guarded(lambda: int(bool(raising(RuntimeError("ours"))())))


def test_an_interrupt_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: int(bool(raising(KeyboardInterrupt())())), "stopped") == 130
    assert capsys.readouterr().err == "\nstopped\n"


def test_foreign_text_is_one_line_that_no_terminal_obeys(ends: End) -> None:
    name = "a\x1b[31m\nb\r\u202ec\udcff"
    assert ends(raising(UserError(f"{name}: wrong; mend it"))) == r"a\x1b[31m\nb\r\u202ec\udcff: wrong; mend it"
    long = ends(raising(UserError(f"{'x' * 9999}; mend it")))
    assert len(long) < 800 and long.endswith("; mend it")


def test_secrets_are_not_shown(ends: End, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-first\nsecond-half")
    message = f"refused: {os.environ['OPENAI_API_KEY']!r}, {b'Bearer sk-first'!r}, second-half"
    message += ", https://me:p@ss/w0rd@example.org/v1 and me@example.org"
    shown = ends(raising(UserError(message)))
    assert not any(secret in shown for secret in ("sk-first", "second-half", "p@ss", "w0rd", "me:"))
    assert "https://***@example.org/v1 and me@example.org" in shown


@pytest.mark.parametrize("kind", [UserError, UnreadableImage])
def test_a_message_that_came_through_a_worker_is_the_one_that_was_meant(ends: End, kind: type[UserError]) -> None:
    caught = f'Caught {kind.__name__} in worker.\nOriginal Traceback (most recent call last):\n  File "x"\n'
    assert ends(raising(kind(f"{caught}{kind.__module__}.{kind.__name__}: image a cannot be read"))) == (
        "image a cannot be read"
    )


def test_a_path_that_cannot_be_followed_is_a_line(ends: End, tmp_path: Path) -> None:
    loop = f"Symlink loop from {str(tmp_path / 'loop')!r}"
    assert ends(raising(RuntimeError(loop))) == f"{loop}; give a path that ends at a file or folder"
    assert "nobody of the name after a ~" in ends(Path("~nobody-of-this-name/x").expanduser)


def test_no_file_of_ours_gets_the_number_of_a_stream_that_is_closed(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfor number in (0, 1, 2):\n    os.close(number)\n"
        "from coft.core.exit_codes import as_user_error, guarded\n"
        "sys.exit(guarded(lambda: os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)))\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], check=False).returncode == 3


def test_a_name_that_the_locale_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    error = UnicodeEncodeError("ascii", "f\u00fc\u00dfe", 1, 3, "ordinal not in range(128)")
    assert as_user_error(error) is None
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    refusal = as_user_error(error)
    assert refusal and refusal.line == r"'f\xfc\xdfe': this locale has no such characters; set PYTHONUTF8=1"
