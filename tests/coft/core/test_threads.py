"""Prefetching in a thread."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator

import pytest

from coft.core.threads import prefetch


def test_the_next_item_is_made_while_one_is_used() -> None:
    semaphore = threading.Semaphore(0)

    def items() -> Iterator[int]:
        for number in range(4):
            semaphore.release()
            yield number

    received = list[int]()
    for number in prefetch(items()):
        assert semaphore.acquire(timeout=10)
        if number < 3:
            assert semaphore.acquire(timeout=10), "the next item is not prefetched"
            semaphore.release()
        received.append(number)
    assert received == [0, 1, 2, 3] and list(prefetch(iter([]))) == []


def test_an_error_is_raised_in_place_of_its_item() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    received = list[int]()
    with pytest.raises(ValueError, match="broken"):
        received.extend(prefetch(items()))
    assert received == [1]


def test_closing_ends_the_thread() -> None:
    before, ahead = threading.active_count(), prefetch(iter(range(100)))
    assert next(ahead) == 0
    ahead.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_processes_that_are_started_in_the_thread_end_well() -> None:
    def items() -> Iterator[int | None]:
        process = multiprocessing.get_context("fork").Process(target=int)
        process.start()
        process.join()
        yield process.exitcode

    assert list(prefetch(items())) == [0]
