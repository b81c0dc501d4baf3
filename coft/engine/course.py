"""How far a run is, and how long it still takes: one bar for the whole of it, or a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tqdm.auto import tqdm

from coft.core.progress import bars_are_seen, progress, said

FULL_BY_LIGHT = 3.0  # seconds of a step of a phase that has not begun, by those of the phase before it
LINES = 10  # without a terminal, a line for each of so many parts of the run
ROMAN = {1: "I", 2: "II"}


@dataclass(frozen=True)
class Epoch:
    """An epoch that is planned.

    Attributes:
        phase: From 1.
        steps: How many.
    """

    phase: int
    steps: int


@dataclass
class Course:
    """The course of a run: what is done, and an estimate of the seconds that are left.

    An epoch takes what earlier ones of its phase took on the mean. Before there is one, its steps count.

    Attributes:
        plan: Gives all epochs of the run, from the first one's beginning on.
        now: The time, in seconds.
        changed: Called at each step.
        epoch: The one under way.
    """

    plan: Callable[[], Sequence[Epoch]]
    now: Callable[[], float] = time.monotonic
    changed: Callable[[], None] = lambda: None
    epoch: int = 0
    _share: float = 0.0
    _done: int = 0  # steps of the epoch under way
    _start: float = 0.0  # of the run, or of its part that goes on
    _resumed: int = 0  # epochs before that part
    _began: float = 0.0  # the epoch under way
    _first: float = 0.0  # the end of its first step
    _took: dict[int, list[float]] = field(default_factory=dict)  # seconds of finished epochs, by phase

    @cached_property
    def epochs(self) -> Sequence[Epoch]:
        """All epochs of the run."""
        return self.plan()

    def begin(self, epoch: int) -> None:
        """An epoch begins; the one before it has ended."""
        now = self.now()
        if self._done:
            self._took.setdefault(self.epochs[self.epoch].phase, []).append(now - self._began)
        if not self._start:
            self._start, self._resumed = now, epoch
        self.epoch, self._done, self._began = epoch, 0, now

    def step(self) -> None:
        """A step is made."""
        self._done += 1
        if self._done == 1:
            self._first = self.now()
        self.changed()

    def left(self) -> float | None:
        """Seconds until the last epoch ends; None before the second step."""
        by_phase = self._seconds_by_phase()
        if not by_phase:
            return None
        present = self._epoch_takes(self.epochs[self.epoch], by_phase) - (self.now() - self._began)
        return max(0.0, present) + sum(self._epoch_takes(epoch, by_phase) for epoch in self.epochs[self.epoch + 1 :])

    def share(self) -> float:
        """Share of the time that is over, in [0, 1]. It never falls."""
        left, elapsed = self.left(), self.now() - self._start
        if left is not None and elapsed > 0:
            by_phase = self._seconds_by_phase()
            elapsed += sum(self._epoch_takes(epoch, by_phase) for epoch in self.epochs[: self._resumed])
            self._share = max(self._share, elapsed / (elapsed + left))
        return self._share

    def place(self) -> str:
        """The phase and epoch under way, in words."""
        phase = self.epochs[self.epoch].phase
        of_phase = [number for number, epoch in enumerate(self.epochs) if epoch.phase == phase]
        place = f"epoch {of_phase.index(self.epoch) + 1} of {len(of_phase)}"
        return f"Phase {ROMAN.get(phase, phase)}, {place}" if self.epochs[-1].phase > 1 else place

    def _seconds_by_phase(self) -> dict[int, float]:
        """Seconds of a step of each phase, with all that an epoch takes beside its steps."""
        seconds = {}
        for phase, took in self._took.items():
            steps = next(epoch.steps for epoch in self.epochs if epoch.phase == phase)
            seconds[phase] = sum(took) / len(took) / max(1, steps)
        epoch = self.epochs[self.epoch]
        if self._done > 1:  # the first step ends what an epoch begins with, too
            of_step = (self.now() - self._first) / (self._done - 1)
            seconds.setdefault(epoch.phase, (self._first - self._began + of_step * (epoch.steps - 1)) / epoch.steps)
        return seconds

    def _epoch_takes(self, epoch: Epoch, seconds: dict[int, float]) -> float:
        of_step = seconds[epoch.phase] if epoch.phase in seconds else FULL_BY_LIGHT * seconds[max(seconds)]
        return of_step * epoch.steps


def course_of(method: Any) -> Course:
    """The course of a method."""

    def plan() -> list[Epoch]:
        phases = [method.phase(epoch) for epoch in range(method.epochs)]
        given = method.labelled
        return [Epoch(phase, method.steps(phase) if given is None else len(given)) for phase in phases]

    return Course(plan)


@contextmanager
def shown(course: Course, title: str) -> Iterator[None]:
    """Context in which the course of a run is shown; bars of its parts are not.

    Args:
        course: The course.
        title: Stands before it.
    """
    with progress(False):
        if bars_are_seen():
            with _bar(course, title):
                yield
        else:
            course.changed = _Lines(course, title)
            yield


@contextmanager
def _bar(course: Course, title: str) -> Iterator[None]:
    form = "{desc} {bar} {percentage:3.0f} %"
    with tqdm(total=1.0, desc=title, bar_format=form, leave=False, dynamic_ncols=True) as bar:

        def changed() -> None:
            bar.set_description_str(f"{title}, {course.place()}{time_left(course.left())}", refresh=False)
            bar.update(course.share() - bar.n)

        course.changed = changed
        yield


class _Lines:
    """Says a line for each part of the run."""

    def __init__(self, course: Course, title: str) -> None:
        self.course, self.title, self.part = course, title, 0

    def __call__(self) -> None:
        part = int(self.course.share() * LINES)
        if part > self.part:
            self.part = part
            course = self.course
            said.info("%s, %s: %.0f %%%s", self.title, course.place(), 100 * course.share(), time_left(course.left()))


def time_left(seconds: float | None) -> str:
    """A time that is left, for the end of a line: ", 12 min left"."""
    if seconds is None:
        return ""
    minutes = seconds / 60
    if minutes >= 90:
        return f", {minutes / 60:.1f} h left"
    return f", {minutes:.0f} min left" if minutes >= 2 else f", {seconds:.0f} s left"
