"""Progress bar over many runs, with an estimate of the remaining time after each."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from tqdm import tqdm

from .plan import Run

BAR = "{n_fmt} of {total_fmt} runs {bar} {elapsed}{postfix}"


class Progress:
    """Progress bar over all runs, and a line after each.

    Args:
        runs: Runs to do.
        finished: Seconds of runs that are finished.
        jobs: Number of concurrent runs.
    """

    def __init__(self, runs: Sequence[Run], finished: Mapping[Run, float], jobs: int = 1) -> None:
        self.left, self.seconds, self.jobs = list(runs), dict(finished), jobs
        self.bar = tqdm(total=len(runs), bar_format=BAR, disable=None, dynamic_ncols=True)

    def show(self, active: Sequence[Run]) -> None:
        """Draw the bar with the titles of the active runs."""
        self.bar.set_postfix_str("; ".join(run.title for run in active) or "waiting for another process")

    def finished(self, run: Run, seconds: float | None, note: str) -> None:
        """Count a run that ended, and print a line about it; `seconds` is None if it failed."""
        self.left.remove(run)
        if seconds is not None:
            self.seconds[run] = seconds
        line = f"[{self.bar.total - len(self.left)} of {self.bar.total}] {run.title}: {note}"
        if self.left and self.seconds:
            line += f" (about {tqdm.format_interval(remaining(self.left, self.seconds, self.jobs))} to go)"
        tqdm.write(line, file=sys.stderr)
        self.bar.update()


def remaining(runs: Sequence[Run], finished: Mapping[Run, float], jobs: int) -> float:
    """Estimate the seconds until all runs have ended; each takes the mean of the most similar finished ones.

    Args:
        runs: Runs that are left.
        finished: Seconds of finished runs, at least one.
        jobs: Number of concurrent runs.
    """
    seconds: dict[Any, list[float]] = defaultdict(list)
    for run, took in finished.items():
        for likeness in _likenesses(run):
            seconds[likeness].append(took)
    expected = [mean(next(seconds[at] for at in _likenesses(run) if at in seconds)) for run in runs]
    return max(sum(expected) / jobs, *expected)


def _likenesses(run: Run) -> tuple[Any, ...]:
    """Return keys that runs of about the same length share, the most specific first."""
    trainer = run.method.trainer
    return (trainer, run.method.shots, run.dataset, run.backbone), trainer, None
