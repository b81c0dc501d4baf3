"""Timing of a run: seconds spent in each part."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STEPS, WAITING = "steps", "waiting for images"


class Stopwatch:
    """Seconds spent in each part of a run. The time of a nested part is not counted for the outer one.

    Args:
        part: Name of the first part.

    Attributes:
        seconds: Seconds by name of the part.
    """

    def __init__(self, part: str) -> None:
        self.seconds: dict[str, float] = {}
        self._part, self._since = part, time.perf_counter()

    def enter(self, part: str) -> str:
        """Begin a part, and end the present one.

        Returns:
            Name of the part that ends.
        """
        now, left = time.perf_counter(), self._part
        self.seconds[left] = self.seconds.get(left, 0.0) + now - self._since
        self._part, self._since = part, now
        return left

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Context whose time is counted for a part."""
        outer = self.enter(name)
        try:
            yield
        finally:
            self.enter(outer)

    def split(self) -> dict[str, float]:
        """Return the seconds of each part so far, the longest first."""
        self.enter(self._part)
        return dict(sorted(self.seconds.items(), key=lambda item: -item[1]))

    def summary(self) -> str:
        """Return a line with the seconds of all parts, and the share of training spent waiting for images."""
        seconds = self.split()
        waiting = seconds.get(WAITING, 0.0)
        share = waiting / max(waiting + seconds.get(STEPS, 0.0), 1e-9)
        parts = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())
        return f"Seconds: {parts} ({100 * share:.0f} % of training is waiting for images)"


class TimedLoader:
    """Loader wrapper that measures the time spent waiting for batches.

    Args:
        loader: Any loader.
        clock: Stopwatch that counts this time as `WAITING`.
    """

    def __init__(self, loader: Any, clock: Stopwatch) -> None:
        self.loader, self.clock = loader, clock

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        with self.clock.part(WAITING):
            batches = iter(self.loader)
        end = object()
        while True:
            with self.clock.part(WAITING):
                batch = next(batches, end)
            if batch is end:
                return
            yield batch
