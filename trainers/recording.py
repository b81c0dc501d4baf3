"""Profiles of a few steps of each phase: `profile.txt`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from coft.core.timing import profiled
from coft.core.world import World

Step = Callable[[Any], Any]


class StepProfiler:
    """Profiler of a few steps of each phase.

    Args:
        folder: Folder in which `profile.txt` is written.
        world: Processes of the run. The main process writes.
    """

    def __init__(self, folder: str, world: World) -> None:
        self.path, self.world = Path(folder) / "profile.txt", world
        self._steps: dict[int, Step] = {}  # by phase; kept, as one epoch may have too few steps to profile

    def step_of(self, phase: int, step: Step) -> Step:
        """Return the step function of a phase, wrapped so that a few of its calls are profiled."""
        if phase not in self._steps:
            self._steps[phase] = profiled(step, f"Phase {phase}", self.report)
        return self._steps[phase]

    def report(self, table: str) -> None:
        """Print a table of operations, and append it to the file."""
        if not self.world.is_main:
            return
        print(table)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{table}\n")
