"""Progress of a run and its remaining time: one bar for the whole run, or occasional log lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tqdm.auto import tqdm

from coft.core.progress import bars_are_seen, progress, user_log
from coft.core.words import about

PHASE2_STEP_RATIO = 3.0  # assumed time of a step in a phase that has not begun, relative to the last measured phase
LINES = 10  # number of progress lines of a run without a terminal
ROMAN = {1: "I", 2: "II"}


@dataclass(frozen=True)
class Epoch:
    """A planned epoch.

    Attributes:
        phase: Number of the phase, from 1.
        steps: Number of steps.
    """

    phase: int
    steps: int


@dataclass
class RunProgress:
    """Progress of a run, with an estimate of the remaining seconds.

    An epoch is estimated by the mean time of the finished epochs of its phase. Without one, the steps of the current
    epoch are extrapolated.

    Attributes:
        plan: Returns all epochs of the run. It is called late, since their steps may depend on the first labels.
        now: Returns the time in seconds.
        changed: Called after each step.
        epoch: Number of the current epoch.
    """

    plan: Callable[[], Sequence[Epoch]]
    now: Callable[[], float] = time.monotonic
    changed: Callable[[], None] = lambda: None
    epoch: int = 0
    _fraction: float = 0.0
    _done: int = 0  # finished steps of the current epoch
    _start: float = 0.0  # start time of the run, or of its resumed part
    _resumed: int = 0  # number of epochs before the resumed part
    _began: float = 0.0  # start time of the current epoch
    _first: float = 0.0  # end time of its first step
    _took: dict[int, list[float]] = field(default_factory=dict)  # seconds of finished epochs, by phase

    @cached_property
    def epochs(self) -> Sequence[Epoch]:
        """All epochs of the run."""
        return self.plan()

    def begin(self, epoch: int) -> None:
        """Record that an epoch begins, and thereby that the one before it has ended."""
        now = self.now()
        if self._done:
            self._took.setdefault(self.epochs[self.epoch].phase, []).append(now - self._began)
        if not self._start:
            self._start, self._resumed = now, epoch
        self.epoch, self._done, self._began = epoch, 0, now

    def step(self) -> None:
        """Record that a step is done."""
        self._done += 1
        if self._done == 1:
            self._first = self.now()
        self.changed()

    def seconds_left(self) -> float | None:
        """Estimate the seconds until the last epoch ends; None before the second step of the run."""
        by_phase = self._seconds_by_phase()
        if not by_phase:
            return None
        present = self._epoch_seconds(self.epochs[self.epoch], by_phase) - (self.now() - self._began)
        return max(0.0, present) + sum(self._epoch_seconds(epoch, by_phase) for epoch in self.epochs[self.epoch + 1 :])

    def fraction_done(self) -> float:
        """Return the elapsed share of the total time, in [0, 1]. It never decreases."""
        left, elapsed = self.seconds_left(), self.now() - self._start
        if left is not None and elapsed > 0:
            by_phase = self._seconds_by_phase()
            elapsed += sum(self._epoch_seconds(epoch, by_phase) for epoch in self.epochs[: self._resumed])
            self._fraction = max(self._fraction, elapsed / (elapsed + left))
        return self._fraction

    def phase_and_epoch(self) -> str:
        """Return the current phase and epoch, in words."""
        phase = self.epochs[self.epoch].phase
        of_phase = [number for number, epoch in enumerate(self.epochs) if epoch.phase == phase]
        place = f"epoch {of_phase.index(self.epoch) + 1} of {len(of_phase)}"
        return f"Phase {ROMAN.get(phase, phase)}, {place}" if self.epochs[-1].phase > 1 else place

    def _seconds_by_phase(self) -> dict[int, float]:
        """Return the seconds per step of each measured phase, with the overhead of an epoch spread over its steps."""
        seconds = {}
        for phase, took in self._took.items():
            steps = next(epoch.steps for epoch in self.epochs if epoch.phase == phase)
            seconds[phase] = sum(took) / len(took) / max(1, steps)
        epoch = self.epochs[self.epoch]
        if self._done > 1:  # the first step also includes the overhead at the start
            of_step = (self.now() - self._first) / (self._done - 1)
            seconds.setdefault(epoch.phase, (self._first - self._began + of_step * (epoch.steps - 1)) / epoch.steps)
        return seconds

    def _epoch_seconds(self, epoch: Epoch, seconds: dict[int, float]) -> float:
        of_step = seconds[epoch.phase] if epoch.phase in seconds else PHASE2_STEP_RATIO * seconds[max(seconds)]
        return of_step * epoch.steps


def progress_of(method: Any) -> RunProgress:
    """Return a progress tracker for a method."""

    def plan() -> list[Epoch]:
        phases = [method.phase(epoch) for epoch in range(method.epochs)]
        given = method.labelled
        return [Epoch(phase, method.steps(phase) if given is None else len(given)) for phase in phases]

    return RunProgress(plan)


@contextmanager
def show_progress(run: RunProgress, title: str) -> Iterator[None]:
    """Show the progress of a run within this context, and hide the bars of its parts.

    Args:
        run: Progress of the run.
        title: Prefix of the bar or lines.
    """
    with progress(False):
        if bars_are_seen():
            with _bar(run, title):
                yield
        else:
            run.changed = _line_by_part(run, title)
            yield


@contextmanager
def _bar(run: RunProgress, title: str) -> Iterator[None]:
    form = "{desc} {bar} {percentage:3.0f} %"
    with tqdm(total=1.0, desc=title, bar_format=form, leave=False, dynamic_ncols=True) as bar:

        def changed() -> None:
            bar.set_description_str(f"{title}, {run.phase_and_epoch()}{time_left(run.seconds_left())}", refresh=False)
            bar.update(run.fraction_done() - bar.n)

        run.changed = changed
        yield


def _line_by_part(run: RunProgress, title: str) -> Callable[[], None]:
    """Return a callback that logs a line for each of `LINES` parts of the run."""
    part = 0

    def changed() -> None:
        nonlocal part
        fraction = run.fraction_done()
        if int(fraction * LINES) > part:
            part = int(fraction * LINES)
            words = run.phase_and_epoch(), 100 * fraction, time_left(run.seconds_left())
            user_log.info("%s, %s: %.0f %%%s", title, *words)

    return changed


def time_left(seconds: float | None) -> str:
    """Return the remaining time as the end of a line: ", 12 min left"; "" if it is None."""
    return "" if seconds is None else f", {about(seconds)} left"
