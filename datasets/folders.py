"""Images in class folders: `<folder>/<class>/*.jpg`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from coft.core.errors import UserError, did_you_mean
from coft.images.reading import SUFFIXES
from dassl.data.datasets import Datum


def letters_of(name: str) -> str:
    """Return the letters and digits of a name in lower case, by which names of folders and classes are compared."""
    return "".join(filter(str.isalnum, name.lower()))


def image_files(folder: Path) -> Iterator[Path]:
    """Yield all image files below a folder at any depth, sorted by name, without hidden files and folders."""
    with os.scandir(folder) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in visible:
        if entry.is_dir():
            yield from image_files(Path(entry.path))
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:  # noqa: PTH122  # much faster than Path
            yield Path(entry.path)


def first_folder(parent: Path, names: Iterable[str]) -> Path | None:
    """Return the first of several folders that exists; None if none does."""
    return next((parent / name for name in names if (parent / name).is_dir()), None)


def class_folders(parent: Path) -> list[Path]:
    """Return the folders in a folder, sorted by name, without hidden ones."""
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def read_folders(folder: Path, classnames: Sequence[str]) -> list[Datum]:
    """Read images in folders that are named after their classes.

    Args:
        folder: Parent of the class folders.
        classnames: Class names by label. Only letters and digits are compared, ignoring case.

    Raises:
        UserError: If a folder is not named after a class, or there is no image.
    """
    label_of = {letters_of(name): label for label, name in enumerate(classnames)}
    items = []
    for class_folder in class_folders(folder):
        label = label_of.get(letters_of(class_folder.name))
        if label is None:
            hint = did_you_mean(class_folder.name, classnames)
            raise UserError(f"folder {class_folder} is named after no class; {hint}")
        name = classnames[label]
        items += [Datum(impath=str(path), label=label, classname=name) for path in image_files(class_folder)]
    if not items:
        raise UserError(f"folder {folder} has no images; expected them in folders of classes, such as {classnames[0]}/")
    return items
