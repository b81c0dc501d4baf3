"""Time by part: every second is counted once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coft.core import timing
from coft.core.timing import STEPS, WAITING, Stopwatch, TimedLoader


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that the test advances."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


def test_time_of_a_nested_part_is_counted_once(clock: Callable[[float], None]) -> None:
    watch = Stopwatch("rest")
    clock(1)
    with watch.part(STEPS):
        clock(10)
        with watch.part("saving"):
            clock(4)
        clock(100)
        with pytest.raises(ValueError), watch.part("saving"):
            clock(1)
            raise ValueError
    clock(1000)
    assert watch.split() == {"rest": 1001, STEPS: 110, "saving": 5}
    assert list(watch.split()) == ["rest", STEPS, "saving"]


def test_waiting_for_batches_and_using_them_are_separate_parts(clock: Callable[[float], None]) -> None:
    def slow() -> Any:
        for number in range(3):
            clock(2)
            yield number

    class Loader:
        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Any:
            clock(0.5)  # workers start
            return slow()

    watch = Stopwatch("rest")
    loader, batches = TimedLoader(Loader(), watch), []
    with watch.part(STEPS):
        for batch in loader:
            clock(6)
            batches.append(batch)
    assert batches == [0, 1, 2] and len(loader) == 3
    assert watch.split() == {STEPS: 18, WAITING: 6.5, "rest": 0}
    assert "(27 % of training is waiting for images)" in watch.summary()
