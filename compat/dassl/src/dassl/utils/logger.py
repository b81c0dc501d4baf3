"""A log file that sees what the console sees."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from .files import StrPath

__all__ = ["Logger", "setup_logger"]


class Logger:
    """Writes to a console stream and to a file. Whatever else is asked of it, the console stream answers.

    Args:
        fpath: The file, appended to; None for the console alone.
        console: The stream that is seen; standard output without it.
    """

    def __init__(self, fpath: StrPath | None = None, console: TextIO | None = None) -> None:
        # a process may have been started without a standard stream
        self.console: TextIO = console or sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115 (as long as the process)
        self.file: TextIO | None = None
        if fpath is not None:
            Path(fpath).parent.mkdir(parents=True, exist_ok=True)
            self.file = Path(fpath).open("a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 (closed by close)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["console"], name)

    def __enter__(self) -> Logger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, msg: str) -> int:
        """Write to both. The file is flushed each time: a forked worker must not inherit half a line."""
        self._on_console(lambda: self.console.write(msg))
        self.record(msg)
        return len(msg)

    def _on_console(self, act: Callable[[], object]) -> None:
        """Do something with the console. Once nobody reads it any more, it leads nowhere: the file has all."""
        if self.console.closed:
            return
        try:
            act()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.console.fileno())

    def record(self, msg: str) -> None:
        """Write to the file alone."""
        if self.file is not None:
            self.file.write(msg)
            self.file.flush()

    def flush(self) -> None:
        """Flush both, the file down to the disk."""
        self._on_console(self.console.flush)
        if self.file is not None:
            self.file.flush()
            os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close the file, and step aside where this is a standard stream; the console stream stays open."""
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is self:
                setattr(sys, name, self.console)
        if self.file is not None:
            self.file.close()
            self.file = None


class ErrorLogger(Logger):
    """Logger of standard error: warnings and tracebacks go to the file, progress bars do not."""

    _in_bar = False

    def record(self, msg: str) -> None:
        """Write to the file, unless it is (or ends) a line that is drawn over and over."""
        drawn = "\r" in msg or "\x1b[A" in msg or (self._in_bar and not msg.strip())
        self._in_bar = drawn
        if not drawn:
            super().record(msg)

    def flush(self) -> None:
        """Flush the console; bars do so many times a second, so the disk is left alone."""
        self._on_console(self.console.flush)


def setup_logger(output: StrPath | None = None) -> None:
    """Copy standard output, and warnings and tracebacks of standard error, to a log file from now on.

    An earlier log of the same process ends here.

    Args:
        output: A file that ends in .txt or .log, or a folder for `log.txt`; None changes nothing. If the file exists,
            the new one's name gets the time as a suffix.
    """
    if output is None:
        return
    path = Path(output)
    if path.suffix not in (".txt", ".log"):
        path = path / "log.txt"
    if path.exists():
        path = path.with_name(path.name + time.strftime("-%Y-%m-%d-%H-%M-%S"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Logger):
            stream.close()
    sys.stdout = Logger(path)
    sys.stderr = ErrorLogger(path, sys.stderr)
