"""Iteration with threads: a function applied to many files, and prefetching."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from .progress import bar as progress_bar

BLOCK = 64  # files per task: one task per file would take more memory than the results
T = TypeVar("T")
R = TypeVar("R")


def map_threaded(function: Callable[[T], R], items: Sequence[T], title: str) -> Iterator[R]:
    """Apply a function to items in several threads, with a progress bar.

    Args:
        function: The function. It should wait for files or release the GIL; otherwise threads do not make it faster.
        items: The items.
        title: Title of the progress bar.

    Yields:
        Results in the order of the items, in blocks of `BLOCK`. An exception of the function is raised in place of the
        results of its block.
    """
    blocks = (items[i : i + BLOCK] for i in range(0, len(items), BLOCK))
    with (
        ThreadPoolExecutor(max_workers=min(8, 2 * (os.cpu_count() or 1))) as threads,
        progress_bar(title=title, total=len(items)) as bar,
    ):
        for results in threads.map(lambda block: [function(item) for item in block], blocks):
            bar.update(len(results))
            yield from results


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """Iterate over items, and prefetch one in a thread: each is made while the caller works on the one before.

    Args:
        items: Iterator that shares no random generator with other threads.
    """
    end: Any = object()
    wanted, made = SimpleQueue[bool](), SimpleQueue[Any]()

    def make() -> None:
        while wanted.get():
            future = Future[Any]()
            try:
                future.set_result(next(items, end))
            except BaseException as error:  # it is raised in the caller
                future.set_exception(error)
            made.put(future)

    # A process that is forked in a thread of a ThreadPoolExecutor, as by a DataLoader, ends with exit code 1.
    thread = Thread(target=make, daemon=True)
    thread.start()
    try:
        wanted.put(True)
        while (item := made.get().result()) is not end:
            wanted.put(True)
            yield item
    finally:
        wanted.put(False)
        thread.join()
