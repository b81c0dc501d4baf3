"""Progress bar over many runs, with an estimate of the remaining time."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from tqdm import tqdm

from coft.engine.run_progress import time_left

from .plan import Run

UNKNOWN = 60.0  # assumed seconds of a run while there is no data
BAR = "{desc} {percentage:3.0f} % {bar}{postfix}"


class Progress:
    """Progress bar over all runs, in units of their expected seconds.

    Args:
        runs: Runs to do.
        finished: Seconds of runs that are finished.
        jobs: Number of concurrent runs.
    """

    def __init__(self, runs: Sequence[Run], finished: Mapping[Run, float], jobs: int = 1) -> None:
        self.left, self.seconds, self.jobs = list(runs), dict(finished), jobs
        self.count, self.done = len(self.left), 0.0
        self.expected = expected_seconds(self.left, self.seconds)
        self.under_way, self.seen = dict[Run, float](), dict[Run, tuple[float, float]]()
        self.bar = tqdm(total=1.0, bar_format=BAR, disable=None if runs else True, dynamic_ncols=True)

    def show(self, active: Mapping[Run, tuple[float, float]]) -> None:
        """Draw the bar. `active` holds, for each active run, the share done and the seconds since its start."""
        for run, (share, seconds) in active.items():
            last, _ = self.seen.get(run, (0.0, 0.0))
            if share > last:  # the log has just reported progress
                self.seen[run] = share, seconds
        guessed = {run: seconds / share for run, (share, seconds) in self.seen.items()}
        self.expected = expected_seconds(self.left, {**guessed, **self.seconds})
        self.expected |= {run: seconds for run, seconds in guessed.items() if run in self.expected}
        self.under_way = {run: share for run, (share, _) in active.items()}
        self.bar.total = self.done + sum(self.expected.values())
        self.bar.n = self.done + sum(share * self.expected[run] for run, share in self.under_way.items())
        left = self.remaining() if guessed or self.seconds else None
        self.bar.set_description_str(
            f"{self.count - len(self.left)} of {self.count} runs{time_left(left)}", refresh=False
        )
        self.bar.set_postfix_str("; ".join(run.title for run in active) or "waiting for another process", refresh=True)

    def finished(self, run: Run, seconds: float | None, note: str) -> None:
        """Count a run that ended, and print a line about it; `seconds` is None if it failed."""
        self.done += self.expected[run]
        self.left.remove(run)
        self.under_way.pop(run, None), self.seen.pop(run, None)
        if seconds is not None:
            self.seconds[run] = seconds
        self.expected = expected_seconds(self.left, self.seconds)
        line = f"[{self.count - len(self.left)} of {self.count}] {run.title}: {note}"
        if self.left:
            line += f" (about {tqdm.format_interval(self.remaining())} to go)"
        tqdm.write(line, file=sys.stderr)

    def remaining(self) -> float:
        """Estimate the seconds until all runs have ended."""
        left = {run: seconds * (1 - self.under_way.get(run, 0.0)) for run, seconds in self.expected.items()}
        return max(sum(left.values()) / self.jobs, max(left.values(), default=0.0))


def expected_seconds(runs: Sequence[Run], finished: Mapping[Run, float]) -> dict[Run, float]:
    """Estimate the seconds of each run: the mean over the most similar finished runs."""
    seconds: dict[Any, list[float]] = defaultdict(list)
    for run, took in finished.items():
        for likeness in _likenesses(run):
            seconds[likeness].append(took)
    return {run: mean(next((seconds[at] for at in _likenesses(run) if at in seconds), [UNKNOWN])) for run in runs}


def _likenesses(run: Run) -> tuple[Any, ...]:
    """Return keys that runs of about the same length share, the most specific first."""
    trainer = run.method.trainer
    return (trainer, run.method.shots, run.dataset, run.backbone), trainer, None
