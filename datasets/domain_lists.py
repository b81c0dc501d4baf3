"""Split lists of a domain: `<domain>_{train,crossval,test}_kfold.txt`, as they go with PACS.

A line is a path and the number of its class, from 1: `photo/dog/056_0001.jpg 1`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from coft.core.errors import UserError

from .base import Items, Row, datum
from .benchmark import read_lines

log = logging.getLogger(__name__)
PARTS = ("train", "crossval", "test")


def read_lists(
    places: Sequence[Path], images: Path, domain: str, classnames: Sequence[str]
) -> tuple[Items, Items, Items] | None:
    """Read the images of a domain's lists.

    Args:
        places: Folders that may have the lists.
        images: Folder that the paths are relative to.
        domain: Name of the domain.
        classnames: Names by label.

    Returns:
        Images of training, validation and test; none if there are no lists, or the test is not apart from the rest.

    Raises:
        UserError: If a list is of another form, or names an image that is not there.
    """
    place = next((p for p in places if all(_file(p, domain, part).is_file() for part in PARTS)), None)
    if place is None:
        return None
    rows = {part: read_list(_file(place, domain, part), classnames) for part in PARTS}
    learned = {path for part in ("train", "crossval") for path, _, _ in rows[part]}
    if learned.intersection(path for path, _, _ in rows["test"]):
        log.info("%s: not used, its test images are in its other lists, too; the images are split anew", place)
        return None
    train, val, test = ([datum(images / path, label, name) for path, label, name in rows[part]] for part in PARTS)
    return train, val, test


def _file(place: Path, domain: str, part: str) -> Path:
    return place / f"{domain}_{part}_kfold.txt"


def read_list(file: Path, classnames: Sequence[str]) -> list[Row]:
    """Path, label and class name of each line.

    Raises:
        UserError: If a line is of another form, or its number is not that of the folder's class.
    """
    numbers = {name: str(label + 1) for label, name in enumerate(classnames)}
    rows = []
    for words in read_lines(file):
        name = PurePosixPath(words[0]).parent.name
        if name not in numbers or words[1:] != [numbers[name]]:
            raise UserError(
                f"{file}: {' '.join(words)!r} is no path with the number of its class ({_shown(numbers)}); "
                f"mend it, or take the lists away"
            )
        rows.append((words[0], int(words[1]) - 1, name))
    return rows


def _shown(numbers: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in numbers.items())
