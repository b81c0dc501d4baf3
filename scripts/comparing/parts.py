"""A benchmark's runs dealt out to machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .plan import Run


def dealt(runs: Sequence[Run], part: tuple[int, int], hours: Callable[[Run], float]) -> list[Run]:
    """The runs of one of several machines: each takes about as long, and no run is in two parts.

    Args:
        runs: All runs of the benchmark, finished or not: the parts do not depend on what is finished, or where.
        part: Which one, from 1, of how many.
        hours: That a run takes, about.
    """
    number, count = part
    loads, mine = [0.0] * count, set[Run]()
    for run in sorted(dict.fromkeys(runs), key=lambda run: (-hours(run), run.title)):
        place = loads.index(min(loads))
        loads[place] += hours(run)
        if place == number - 1:
            mine.add(run)
    return [run for run in runs if run in mine]
