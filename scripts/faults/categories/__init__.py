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
    folders,
    images,
    numbers,
    processes,
    settings,
    splits,
)

CATEGORIES: dict[str, Callable[[bool], list[Case]]] = {
    "settings": settings.cases,
    "command-line": command_line.cases,
    "images": images.cases,
    "classes": classes.cases,
    "checkpoints": checkpoints.cases,
    "splits": splits.cases,
    "folders": folders.cases,
    "archives": archives.cases,
    "endpoint": endpoint.cases,
    "numbers": numbers.cases,
    "processes": processes.cases,
}


def cases_of(names: Sequence[str], quick: bool) -> list[Case]:
    """Cases of some categories.

    Args:
        names: Of the categories.
        quick: Whether to leave out what takes long: processes, and most of the settings.
    """
    return [case for name in names for case in CATEGORIES[name](quick)]
