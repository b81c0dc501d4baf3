"""Images in class folders: `<folder>/<class>/*.jpg`."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from coft.core.errors import UserError, did_you_mean
from coft.images.index import list_images
from dassl.data.datasets import Datum


def letters_of(name: str) -> str:
    """Return the letters, with their marks, and digits of a name in lower case."""
    return "".join(filter(lambda sign: unicodedata.category(sign)[0] in "LMN", _composed(name)))


class Names:
    """Labels by name. Names are compared by their letters and digits where these tell all labels apart.

    Otherwise, as for C and C++, other characters count too, but for case, underscores and blanks.

    Args:
        label_of: Label by name.
    """

    def __init__(self, label_of: Mapping[str, int]) -> None:
        self.exact = {_plain(name): label for name, label in label_of.items()}
        self.loose = defaultdict[str, set[int]](set)
        for name, label in label_of.items():
            self.loose[letters_of(name)].add(label)

    def label(self, name: str) -> int | None:
        """Return the label of a name; None if there is none, or more than one."""
        if (label := self.exact.get(_plain(name))) is not None:
            return label
        labels = self.loose.get(letters_of(name), set())
        return next(iter(labels)) if len(labels) == 1 and letters_of(name) else None


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name).lower()  # macOS decomposes letters with accents


def _plain(name: str) -> str:
    return " ".join(_composed(name).replace("_", " ").split())


def image_files(folder: Path) -> list[Path]:
    """Return all image files below a folder at any depth, sorted by name, without hidden files and folders.

    Raises:
        UserError: If a folder cannot be listed.
    """
    entries = list(list_images(folder))
    if broken := next((entry for entry in entries if entry.problem), None):
        raise UserError(f"{folder / broken.path}: {broken.problem}; check its permissions")
    return sorted((folder / entry.path for entry in entries), key=lambda path: path.parts)


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
        classnames: Class names by label.

    Raises:
        UserError: If a folder is not named after a class, there is no image, or an image is missing.
    """
    names = Names({name: label for label, name in enumerate(classnames)})
    items = []
    for class_folder in class_folders(folder):
        label = names.label(class_folder.name)
        if label is None:
            hint = did_you_mean(class_folder.name, classnames)
            raise UserError(f"folder {class_folder} is named after no class; {hint}")
        items += [datum(path, label, classnames[label]) for path in image_files(class_folder)]
    if not items:
        raise UserError(f"folder {folder} has no images; expected them in folders of classes, such as {classnames[0]}/")
    return items


def datum(path: Path, label: int, classname: str) -> Datum:
    """Make the Datum of an image.

    Args:
        path: Path of the image.
        label: Label of the image.
        classname: Name of its class.

    Raises:
        UserError: If the file is missing.
    """
    try:
        return Datum(impath=str(path), label=label, classname=classname)
    except AssertionError as error:  # raised by Dassl's Datum, which checks that the file exists
        raise UserError(f"image {path} is missing, though the data set has its name; extract the data again") from error
