"""What threads do beside others."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from coft.core.threads import prefetch


def test_an_item_is_made_while_the_one_before_is_worked_on() -> None:
    made = threading.Semaphore(0)

    def items() -> Iterator[int]:
        for number in range(4):
            made.release()
            yield number

    received = list[int]()
    for number in prefetch(items()):
        assert made.acquire(timeout=10)
        if number < 3:
            assert made.acquire(timeout=10), "the next item waits for this one to be done"
            made.release()
        received.append(number)
    assert received == [0, 1, 2, 3] and list(prefetch(iter([]))) == []


def test_an_error_comes_in_the_place_of_its_item() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    received = list[int]()
    with pytest.raises(ValueError, match="broken"):
        received.extend(prefetch(items()))
    assert received == [1]


def test_no_thread_stays_where_nobody_asks_for_more() -> None:
    before, ahead = threading.active_count(), prefetch(iter(range(100)))
    assert next(ahead) == 0
    ahead.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
