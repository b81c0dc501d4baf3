"""Progress bars with the time that is left, and a way to do without them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm.auto import tqdm

_wanted: ContextVar[bool] = ContextVar("wanted", default=True)


@contextmanager
def progress(wanted: bool) -> Iterator[None]:
    """Context in which bars are shown, where there is somebody to see them, or not."""
    token = _wanted.set(wanted)
    try:
        yield
    finally:
        _wanted.reset(token)


def bar(items: Iterable[Any] | None = None, title: str = "", total: int | None = None) -> Any:
    """A bar on a terminal or in a notebook.

    Args:
        items: What is gone through; none where `update` is called by hand.
        title: Stands before it.
        total: How many there are, where the items do not tell.
    """
    seen = "ipykernel" in sys.modules or sys.stderr.isatty()
    return tqdm(items, title, total, leave=False, dynamic_ncols=True, disable=not (_wanted.get() and seen))
