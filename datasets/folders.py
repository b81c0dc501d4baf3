"""Images sorted into folders by class: `<folder>/<class>/*.jpg`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from coft.core.errors import UserError, did_you_mean
from coft.images.reading import SUFFIXES
from dassl.data.datasets import Datum


def spelled(name: str) -> str:
    """A class name reduced to what folder names and class names have in common: letters and digits."""
    return "".join(filter(str.isalnum, name.lower()))


def image_files(folder: Path) -> Iterator[Path]:
    """All image files below a folder, nested or not, in the order of their names; hidden ones are left out."""
    with os.scandir(folder) as entries:
        found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in found:
        if entry.is_dir():
            yield from image_files(Path(entry.path))
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:  # noqa: PTH122  # quicker by far than Path
            yield Path(entry.path)


def first_folder(parent: Path, names: Iterable[str]) -> Path | None:
    """The first of several folders that exists."""
    return next((parent / name for name in names if (parent / name).is_dir()), None)


def read_folders(folder: Path, classnames: Sequence[str], aliases: Mapping[str, str] | None = None) -> list[Datum]:
    """Read images whose folders are named after their classes.

    Args:
        folder: What holds the folders of the classes.
        classnames: Names by label; case, blanks, underscores and the like don't matter.
        aliases: Class names by the names of folders that are called otherwise.

    Raises:
        UserError: If a folder is named after no class, or there is no image.
    """
    known = {spelled(name): label for label, name in enumerate(classnames)}
    aliases = aliases or {}
    items = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        label = known.get(spelled(aliases.get(place.name, place.name)))
        if label is None:
            raise UserError(f"folder {place} is named after no class; {did_you_mean(place.name, classnames)}")
        items += [Datum(impath=str(path), label=label, classname=classnames[label]) for path in image_files(place)]
    if not items:
        raise UserError(f"folder {folder} has no images; expected them in folders of classes, such as {classnames[0]}/")
    return items
