"""Doing the same with many files, several at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from .progress import bar as progress_bar

BLOCK = 64  # files of a task: a task for each would take more memory than the results
T = TypeVar("T")
R = TypeVar("R")


def map_threaded(function: Callable[[T], R], items: Sequence[T], title: str) -> Iterator[R]:
    """Apply a function in threads, with a progress bar.

    Args:
        function: What to do with an item; it should wait for files or leave the interpreter's lock, else threads
            bring nothing.
        items: Any number of them.
        title: Of the progress bar.

    Yields:
        The results, in the order of the items. An error is raised in the place of the first result that lacks.
    """
    blocks = (items[i : i + BLOCK] for i in range(0, len(items), BLOCK))
    with (
        ThreadPoolExecutor(max_workers=min(8, 2 * (os.cpu_count() or 1))) as threads,
        progress_bar(title=title, total=len(items)) as bar,
    ):
        for results in threads.map(lambda block: [function(item) for item in block], blocks):
            bar.update(len(results))
            yield from results


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """Items that a thread makes while whoever asks works on the one before.

    Args:
        items: Whose making uses no random numbers of another thread.
    """
    end: Any = object()
    with ThreadPoolExecutor(1) as thread:
        item = thread.submit(next, items, end).result()
        while item is not end:
            following = thread.submit(next, items, end)
            yield item
            item = following.result()
