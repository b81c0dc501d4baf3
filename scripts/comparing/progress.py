"""One bar over runs of different length."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from tqdm import tqdm

from .plan import Run

UNKNOWN = 60.0  # seconds that a run is taken for while none has finished
FORMAT = "{desc} {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]{postfix}"


class Progress:
    """A bar over all runs, measured in the seconds that they are expected to take.

    Args:
        runs: What is to be done.
        known: Seconds that other runs took.
        jobs: Number of runs at the same time.
    """

    def __init__(self, runs: Sequence[Run], known: Mapping[Run, float], jobs: int = 1) -> None:
        self.left = list(runs)
        self.count = len(runs)
        self.known = dict(known)
        self.jobs = jobs
        self.expected = self._expect()
        self.done = 0.0
        self.bar = tqdm(total=1.0, bar_format=FORMAT, disable=None if runs else True, dynamic_ncols=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.close()

    def _expect(self) -> dict[Run, float]:
        """Seconds that each run will take, as the most similar of the known runs did."""
        means: dict[Any, list[float]] = defaultdict(list)
        for run, seconds in self.known.items():
            for level in _likeness(run):
                means[level].append(seconds)
        return {
            run: next((mean(means[level]) for level in _likeness(run) if level in means), UNKNOWN) for run in self.left
        }

    def show(self, active: Mapping[Run, float]) -> None:
        """Draw the bar; `active` has the share that is done of each run under way."""
        self.bar.total = self.done + sum(self.expected.values())
        self.bar.n = self.done + sum(share * self.expected[run] for run, share in active.items())
        self.bar.set_description_str(f"{self.count - len(self.left)} of {self.count} runs", refresh=False)
        self.bar.set_postfix_str("; ".join(run.title for run in active) or "waiting for another process", refresh=True)

    def finished(self, run: Run, seconds: float | None, note: str) -> None:
        """Count a run that ended, and say so in a line; `seconds` unless it failed."""
        self.done += self.expected[run]
        self.left.remove(run)
        if seconds is not None:
            self.known[run] = seconds
        self.expected = self._expect()
        line = f"[{self.count - len(self.left)} of {self.count}] {run.title}: {note}"
        if self.left:
            line += f" (about {tqdm.format_interval(self.remaining())} to go)"
        tqdm.write(line, file=sys.stderr)

    def remaining(self) -> float:
        """Seconds that the runs that have not ended will take, those under way from their start."""
        return max(sum(self.expected.values()) / self.jobs, max(self.expected.values(), default=0.0))


def _likeness(run: Run) -> tuple[Any, ...]:
    """What runs of about the same length share, the nearest first."""
    trainer = run.method.trainer
    return (trainer, run.method.shots, run.dataset, run.backbone), trainer, None
