"""Operations of a few steps of each phase, recorded for people: `profile.txt`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from coft.core.timing import profiled
from coft.core.world import World

Step = Callable[[Any], Any]


class Recorder:
    """Records the operations of a few steps of each phase.

    Args:
        folder: Of `profile.txt`.
        world: The processes; one of them writes.
    """

    def __init__(self, folder: str, world: World) -> None:
        self.path, self.world = Path(folder) / "profile.txt", world
        self._steps: dict[int, Step] = {}  # by phase, and kept: an epoch may have too few steps to be recorded

    def step_of(self, phase: int, step: Step) -> Step:
        """What makes a step of a phase, and records some."""
        if phase not in self._steps:
            self._steps[phase] = profiled(step, f"Phase {phase}", self.report)
        return self._steps[phase]

    def report(self, table: str) -> None:
        """Show a table of operations, and append it to the file."""
        if not self.world.writes:
            return
        print(table)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{table}\n")
