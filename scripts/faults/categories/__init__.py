"""The categories of the campaign: each module makes the cases of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..case import Case
from . import (
    archives,
    checkpoints,
    classes,
    command_line,
    endpoint,
    environments,
    folders,
    images,
    numbers,
    places,
    processes,
    settings,
    splits,
    values,
)

CATEGORIES: dict[str, Callable[[bool], list[Case]]] = {
    "settings": settings.cases,
    "command-line": command_line.cases,
    "images": images.cases,
    "classes": classes.cases,
    "checkpoints": checkpoints.cases,
    "splits": splits.cases,
    "folders": folders.cases,
    "places": places.cases,
    "archives": archives.cases,
    "endpoint": endpoint.cases,
    "numbers": numbers.cases,
    "values": values.cases,
    "processes": processes.cases,
    "environments": environments.cases,
}


def cases_of(names: Sequence[str], quick: bool) -> list[Case]:
    """Cases of some categories.

    Args:
        names: Of the categories.
        quick: Whether to leave out what takes long: processes, and most of the settings.
    """
    return [case for name in names for case in CATEGORIES[name](quick)]
