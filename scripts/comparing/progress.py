"""Progress bar over many runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from tqdm import tqdm

from .plan import Run

BAR = "{desc} {percentage:3.0f} % {bar} {remaining} to go{postfix}"


class Progress:
    """Progress bar over runs, and a line for each run that ends.

    Args:
        total: Number of runs to do.
    """

    def __init__(self, total: int) -> None:
        self.total, self.ended = total, 0
        self.bar = tqdm(total=total, bar_format=BAR, disable=None if total else True, dynamic_ncols=True)

    def show(self, active: Mapping[Run, float]) -> None:
        """Draw the bar. `active` holds the share done of each active run."""
        self.bar.n = self.ended + sum(active.values())
        self.bar.set_description_str(f"{self.ended} of {self.total} runs", refresh=False)
        self.bar.set_postfix_str("; ".join(run.title for run in active) or "waiting for another process", refresh=True)

    def finish(self, run: Run, note: str) -> None:
        """Count a run that ended, and print a line about it."""
        self.ended += 1
        tqdm.write(f"[{self.ended} of {self.total}] {run.title}: {note}", file=sys.stderr)
