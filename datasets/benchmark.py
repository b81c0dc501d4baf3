"""Base class of the data sets of CoOp's benchmark: folders, class names, and split files."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from coft.core.errors import UserError, did_you_mean
from coft.core.untrusted import read_text

from .base import DeclaredDataset, Items, Row, dataset_root, items_of, read_split
from .folders import class_folders, first_folder, image_files
from .splits import Split, hold_out, save_split, split_by_class

log = logging.getLogger(__name__)
WORD = re.compile("[a-z0-9]+")
CLASSNAMES = Path(__file__).resolve().parent / "classnames"


def declared_names(name: str) -> list[str]:
    """Read the class names of a data set by label, spelled as in CoOp's split file."""
    return read_text(CLASSNAMES / f"{name}.txt").splitlines()


class SplitDataset(DeclaredDataset):
    """A data set with a split file. If the file is missing, a split is made and written to the data set's folder.

    A subclass sets the attributes below: CoOp's layout, and layouts of other sources.

    Attributes:
        name: Name in scripts. Class names are in `classnames/<name>.txt`.
        dataset_dir: Folder of the data set below the data root.
        other_dirs: Other names of this folder.
        image_dirs: Folders in it that may hold the images. The first that exists is used.
        split: Name of the split file.
        unsorted_dir: Folder of the original layout that is missing in a mirror whose images are sorted by class; empty
            if there is no such mirror.
    """

    name: ClassVar[str] = ""
    dataset_dir = ""
    other_dirs: ClassVar[Sequence[str]] = ()
    image_dirs: ClassVar[Sequence[str]] = ("images",)
    split: ClassVar[str] = ""
    unsorted_dir: ClassVar[str] = ""

    def __init__(self, cfg: Any) -> None:
        root = self.find(dataset_root(cfg), [self.dataset_dir, *self.other_dirs])
        images = self.find(root, self.image_dirs)
        self.dataset_dir = str(root)
        names = self.declare(root)
        train, val, test = self.read(root, images, names)
        super().__init__(cfg, classnames=names, train=train, val=val, test=test)

    @classmethod
    def declare(cls, root: Path) -> list[str]:
        """Return the class names by label."""
        return declared_names(cls.name)

    def read(self, root: Path, images: Path, names: Sequence[str]) -> tuple[Items, Items, Items]:
        """Read training, validation and test images by the split file, which is made if there is none."""
        path = root / self.split
        if path.is_file() and not self.sorted_by_class(root):
            return read_split(path, images, names, self.moved(images))
        if self.sorted_by_class(root):
            return read_parts(root, names)
        split = self.make_split(root, images, names)
        items = items_of(split, images, self.moved(images))  # raises if an image is missing, before the split is stored
        try:
            save_split(split, path)
        except OSError as error:  # the data root may be read-only; the split is deterministic and can be made again
            log.warning("%s: the split cannot be stored (%s)", path, error)
        return items

    def make_split(self, root: Path, images: Path, names: Sequence[str]) -> Split:
        """Split the images with a fixed seed. Their folders are named after their classes."""
        return split_by_class(folder_rows(images, names, self.folder_names()))

    @classmethod
    def folder_names(cls) -> Mapping[str, str | None]:
        """Return class names by folder, for folders with another name; None for folders that are left out."""
        return {}

    @classmethod
    def moved(cls, images: Path) -> Mapping[str, str]:
        """Return replacements for the first folder of a path in the split file, by its name."""
        return {}

    @classmethod
    def sorted_by_class(cls, root: Path) -> bool:
        """Return whether the images have a mirror's layout, sorted by class: `train/<class>/` and `test/<class>/`."""
        if not cls.unsorted_dir or (root / cls.unsorted_dir).is_dir():
            return False
        return (root / "train").is_dir() and (root / "test").is_dir()

    @classmethod
    def find(cls, parent: Path, folders: Sequence[str]) -> Path:
        """Return the first of several folders that exists.

        Raises:
            UserError: If none exists.
        """
        if folder := first_folder(parent, folders):
            return folder
        raise UserError(
            f"{cls.__name__}: no {Path(folders[0]).name} at {parent / folders[0]}; "
            f"see: bash scripts/data.sh {cls.name}, or set DATA to the folder that has it"
        )

    @classmethod
    def annotation(cls, root: Path, *paths: str) -> Path:
        """Return a file that a split is made from: the first of several paths that exists.

        Raises:
            UserError: If none exists.
        """
        for path in paths:
            if (root / path).is_file():
                return root / path
        raise UserError(
            f"{cls.__name__}: neither {cls.split} nor {paths[0]} in {root}; put CoOp's split file there "
            f"(see: bash scripts/data.sh {cls.name})"
        )


def folder_rows(images: Path, names: Sequence[str], name_by_folder: Mapping[str, str | None]) -> list[Row]:
    """List the images in folders that are named after their classes.

    Args:
        images: Parent of the class folders.
        names: Class names by label.
        name_by_folder: Class names by folder, for folders with another name; None for a folder that is left out.

    Returns:
        Path below `images`, label and class name of each image.

    Raises:
        UserError: If a folder belongs to no class.
    """
    label_of = {name: label for label, name in enumerate(names)}
    rows = []
    for folder in class_folders(images):
        name = name_by_folder.get(folder.name, folder.name)
        if name is None:
            continue
        if name not in label_of:
            raise UserError(f"folder {folder} is of no class; take it out, or put CoOp's split file beside the images")
        rows += [(str(path.relative_to(images)), label_of[name], name) for path in image_files(folder)]
    return rows


def read_parts(root: Path, names: Sequence[str]) -> tuple[Items, Items, Items]:
    """Read images that a mirror sorted into `train/<class>/` and `test/<class>/`.

    Args:
        root: Folder of the data set.
        names: Class names by label.

    Returns:
        Training images, validation images (a fifth of the training images, held out), and test images.
    """

    def rows(part: str) -> list[Row]:
        entries: list[Row] = []
        for folder in class_folders(root / part):
            if paths := list(image_files(folder)):
                label = label_of(folder, names)
                entries += [(str(path.relative_to(root)), label, names[label]) for path in paths]
        return entries

    return items_of(hold_out(rows("train"), rows("test")), root, {})


def label_of(folder: Path, names: Sequence[str]) -> int:
    """Return the label of a folder whose name has the words of a class name, in any order.

    Raises:
        UserError: If there is no such class.
    """
    words = sorted(WORD.findall(folder.name.lower()))
    for label, name in enumerate(names):
        if sorted(WORD.findall(name.lower())) == words:
            return label
    raise UserError(f"folder {folder} is named after no class; {did_you_mean(folder.name, names)}")
