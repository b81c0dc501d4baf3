"""A progress bar on a terminal, with printed lines above it."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from tqdm import tqdm


def wanted() -> bool:
    """Return whether to show a bar: if DASSL_PROGRESS is 1, or if it is not set and standard error is a terminal."""
    forced = os.environ.get("DASSL_PROGRESS")
    return forced == "1" if forced in ("0", "1") else sys.stderr.isatty()


class LinesAbove:
    """Stream that replaces standard output while a bar is shown, and prints whole lines above the bar.

    Args:
        console: Original standard output.
    """

    def __init__(self, console: TextIO) -> None:
        self.console = console
        self._begun = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["console"], name)

    def write(self, text: str) -> int:
        """Write complete lines, and buffer the rest."""
        lines, newline, self._begun = (self._begun + text).rpartition("\n")
        if newline:
            self._print(lines + newline)
        return len(text)

    def close(self) -> None:
        """Write an incomplete line. The console stays open."""
        if self._begun:
            self._print(self._begun)
            self._begun = ""

    def _print(self, text: str) -> None:
        with tqdm.external_write_mode(file=sys.stdout):
            self.console.write(text)


@contextlib.contextmanager
def progress_bar(batches: Iterable[Any], title: str, total: int) -> Iterator[tqdm]:
    """Context with a progress bar for a loop over batches; the bar is hidden if `wanted` returns False.

    Args:
        batches: Batches to iterate over.
        title: Text before the bar.
        total: Number of batches.

    Yields:
        The bar, an iterable of the batches.
    """
    shown = wanted()
    with (
        tqdm(batches, title, total, leave=False, dynamic_ncols=True, disable=not shown) as bar,
        _lines_above() if shown else contextlib.nullcontext(),
    ):
        yield bar


@contextlib.contextmanager
def _lines_above() -> Iterator[None]:
    """Context in which output that is printed or logged to standard output appears above the bar."""
    console = sys.stdout
    lines: Any = LinesAbove(console)
    handlers = [handler for handler in logging.getLogger().handlers if getattr(handler, "stream", None) is console]
    for handler in handlers:
        handler.setStream(lines)  # type: ignore[attr-defined]
    try:
        with contextlib.redirect_stdout(lines), contextlib.closing(lines):
            yield
    finally:
        for handler in handlers:
            handler.setStream(console)  # type: ignore[attr-defined]
