"""Progress bars with the time that is left, and a way to do without them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm.auto import tqdm

_shown: ContextVar[bool] = ContextVar("shown", default=True)


@contextmanager
def progress(shown: bool) -> Iterator[None]:
    """Context in which bars are shown, where there is somebody to see them, or not."""
    token = _shown.set(shown)
    try:
        yield
    finally:
        _shown.reset(token)


@contextmanager
def lines(shown: bool) -> Iterator[None]:
    """Context in which the library's log is on standard error, unless bars are seen or a program has set up its own."""
    library = logging.getLogger("coft")
    if not shown or bars_are_seen() or library.hasHandlers():
        yield
        return
    handler, level = logging.StreamHandler(), library.level  # its format is the bare message
    library.addHandler(handler)
    library.setLevel(logging.INFO)
    try:
        yield
    finally:
        library.removeHandler(handler)
        library.setLevel(level)


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
