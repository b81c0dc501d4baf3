"""Log file that receives a copy of the console output."""

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
    """Stream that writes to a console stream and to a file. Other attributes are those of the console stream.

    Args:
        fpath: Path of the file, which is appended to; None for the console only.
        console: Console stream; default: standard output.
    """

    def __init__(self, fpath: StrPath | None = None, console: TextIO | None = None) -> None:
        # a process may have been started without standard streams
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
        """Write to both streams. The file is flushed each time, so that forked workers do not inherit buffered text."""
        self._on_console(lambda: self.console.write(msg))
        self.record(msg)
        return len(msg)

    def _on_console(self, act: Callable[[], object]) -> None:
        """Do something with the console. Once its pipe is broken, it is redirected to /dev/null; the file has all."""
        if self.console.closed:
            return
        try:
            act()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.console.fileno())

    def record(self, msg: str) -> None:
        """Write to the file only."""
        if self.file is not None:
            self.file.write(msg)
            self.file.flush()

    def flush(self) -> None:
        """Flush both streams, the file to disk."""
        self._on_console(self.console.flush)
        if self.file is not None:
            self.file.flush()
            os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close the file, and restore the standard streams that this logger replaces. The console stream stays open."""
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
        """Write to the file, unless the text is part of a progress bar, which is redrawn in place."""
        drawn = "\r" in msg or "\x1b[A" in msg or (self._in_bar and not msg.strip())
        self._in_bar = drawn
        if not drawn:
            super().record(msg)

    def flush(self) -> None:
        """Flush the console only, and not the disk, because bars flush many times per second."""
        self._on_console(self.console.flush)


def setup_logger(output: StrPath | None = None) -> None:
    """Start to copy standard output, and warnings and tracebacks of standard error, to a log file.

    A log that the process has set up before is closed.

    Args:
        output: Path of a file that ends in .txt or .log, or of a folder for `log.txt`; None changes nothing. If the
            file exists, the time is appended to the name of the new one.
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
