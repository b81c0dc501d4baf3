"""Distribution of a benchmark's runs over machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .plan import Run


def runs_of_part(runs: Sequence[Run], part: tuple[int, int], hours: Callable[[Run], float]) -> list[Run]:
    """Return the runs of one of several machines. The parts are disjoint and take about the same time.

    Args:
        runs: All runs of the benchmark, finished or not, so that the parts do not depend on what is finished where.
        part: Number of the part, from 1, and number of parts.
        hours: Function that estimates the hours of a run.
    """
    number, count = part
    loads, of_part = [0.0] * count, set[Run]()
    for run in sorted(dict.fromkeys(runs), key=lambda run: (-hours(run), run.title)):
        place = loads.index(min(loads))
        loads[place] += hours(run)
        if place == number - 1:
            of_part.add(run)
    return [run for run in runs if run in of_part]
