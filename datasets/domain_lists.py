"""Split lists of a domain, in the format of PACS: `<domain>_{train,crossval,test}_kfold.txt`.

A line has a path and the number of its class, from 1: `photo/dog/056_0001.jpg 1`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from coft.core.errors import UserError

from .annotations import read_lines
from .base import Items, Row, datum, within

log = logging.getLogger(__name__)
PARTS = ("train", "crossval", "test")


def read_lists(
    folders: Sequence[Path], images: Path, domain: str, classnames: Sequence[str]
) -> tuple[Items, Items, Items] | None:
    """Read the images in the lists of a domain.

    Args:
        folders: Folders that may hold the lists.
        images: Folder that the paths are relative to.
        domain: Name of the domain.
        classnames: Class names by label.

    Returns:
        Images of training, validation and test. None if there are no lists, or if a test image is in another list, too.

    Raises:
        UserError: If a list has another format, or an image is missing.
    """
    complete = (path for path in folders if all(_list_file(path, domain, part).is_file() for part in PARTS))
    folder = next(complete, None)
    if folder is None:
        return None
    rows = {part: read_list(_list_file(folder, domain, part), classnames) for part in PARTS}
    training_paths = {path for part in ("train", "crossval") for path, _, _ in rows[part]}
    if training_paths.intersection(path for path, _, _ in rows["test"]):
        log.info("%s: not used, its test images are in its other lists, too; the images are split again", folder)
        return None
    train, val, test = ([datum(images / path, label, name) for path, label, name in rows[part]] for part in PARTS)
    return train, val, test


def _list_file(folder: Path, domain: str, part: str) -> Path:
    return folder / f"{domain}_{part}_kfold.txt"


def read_list(file: Path, classnames: Sequence[str]) -> list[Row]:
    """Read path, label and class name of each line of a list.

    Args:
        file: Path of the list.
        classnames: Class names by label.

    Raises:
        UserError: If a line has another format, or its number is not that of its folder's class.
    """
    numbers = {name: str(label + 1) for label, name in enumerate(classnames)}
    rows = []
    for words in read_lines(file):
        name = PurePosixPath(words[0]).parent.name
        if name not in numbers or words[1:] != [numbers[name]]:
            raise UserError(
                f"{file}: {' '.join(words)!r} is no path with the number of its class ({_numbers_text(numbers)}); "
                f"mend it, or take the lists away"
            )
        try:
            rows.append(within(words[0], int(words[1]) - 1, name))
        except ValueError as error:
            raise UserError(f"{file}: {error}; mend it, or take the lists away") from error
    return rows


def _numbers_text(numbers: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in numbers.items())
