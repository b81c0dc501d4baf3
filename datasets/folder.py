"""A user's own folder of images, with class names and no labels."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from coft.core.errors import UserError, did_you_mean
from coft.core.files import check_not_inside
from coft.core.paths import expanded
from coft.engine.class_names import Classes, read_classes
from coft.engine.predictions import write_duplicates, write_skipped
from coft.images.index import Entry, index_folder
from dassl.data.datasets import DATASET_REGISTRY, Datum

from .base import UNKNOWN, DeclaredDataset
from .folders import SUFFIXES, letters_of

log = logging.getLogger(__name__)


@DATASET_REGISTRY.register()
class Folder(DeclaredDataset):
    """All images below DATASET.IMAGES, flat or nested, and the classes of DATASET.CLASSES.

    All images are unlabeled training images, and all are predicted at the end. With DATASET.LABELS_FROM_FOLDERS the
    names of folders are labels, but only in the evaluation. Duplicates are trained on once.

    Attributes:
        reports_predictions: Whether trainers write `predictions.csv`.
        content_hashes: SHA-256 by path, so that the files need not be read again.
        classes: Classes as the user declared them.
        descriptions: Descriptive sentences by class name, if the file of classes has them.
        synonyms: Other names by class name, if the user gave any.
        duplicates: Number of duplicate images.
    """

    dataset_dir = ""
    reports_predictions = True

    def __init__(self, cfg: Any) -> None:
        options = cfg.DATASET
        self.classes = read_classes(options.CLASSES)
        names = self.classes.names
        self.descriptions, self.synonyms = self.classes.descriptions, self.classes.synonyms
        folder = find_folder(options.IMAGES)
        check_not_inside(folder, Path(cfg.OUTPUT_DIR), "--output-dir")
        self.dataset_dir = str(folder)
        entries = index_folder(folder)
        images = [entry for entry in entries if not entry.problem]
        if not images:
            if not entries:
                raise UserError(
                    f"--images {folder}: no image in it; files named {', '.join(sorted(SUFFIXES))} are read"
                )
            example = f"such as {entries[0].path}: {entries[0].problem}; give others"
            raise UserError(f"--images {folder}: no image that can be read ({len(entries)} found), {example}")
        skipped = [(os.fspath(folder / entry.path), entry.problem) for entry in entries if entry.problem]
        write_skipped(Path(cfg.OUTPUT_DIR), skipped)
        label_of_name = folder_names(self.classes)
        labels = [UNKNOWN] * len(images)
        if options.LABELS_FROM_FOLDERS:
            label_of = {letters_of(name): label for name, label in label_of_name.items()}
            labels = [folder_label(entry.path, label_of, label_of_name) for entry in images]
        if options.SUBSAMPLE_CLASSES != "all":
            raise UserError(
                "DATASET.SUBSAMPLE_CLASSES splits benchmarks; for your own images list the classes you want"
            )
        self.content_hashes = {str(folder / entry.path): entry.digest for entry in images}
        items = [make_item(folder, *pair, names) for pair in zip(images, labels, strict=True)]
        distinct = first_of_each_content(images, items)
        self.duplicates = len(items) - len(distinct)
        log.info(
            "Own images: %d, and %d duplicates; skipped: %d", len(distinct), self.duplicates, len(entries) - len(images)
        )
        write_duplicates(Path(cfg.OUTPUT_DIR), self.content_hashes)
        super().__init__(cfg, classnames=names, train=distinct, test=items)
        self.unlabeled_part = "images of the folder, which are predicted as well"


def find_folder(images: str) -> Path:
    """Return the folder of a user's images.

    Args:
        images: The value of DATASET.IMAGES.

    Raises:
        UserError: If the value is empty, or not a folder.
    """
    if not images:
        raise UserError("data set folder: --images is missing; give the folder that has your images")
    folder = expanded(images).resolve()
    if not folder.is_dir():
        raise UserError(f"--images {folder}: {'is no folder' if folder.exists() else 'no such folder'}; check the path")
    return folder


def folder_names(classes: Classes) -> dict[str, int]:
    """Return the label for each possible folder name: class names, and synonyms that are not class names."""
    by_synonym = {
        synonym: label for label, name in enumerate(classes.names) for synonym in classes.synonyms.get(name, ())
    }
    return by_synonym | {name: label for label, name in enumerate(classes.names)}


def folder_label(path: str, label_of: Mapping[str, int], names: Iterable[str]) -> int:
    """Return the label of an image: that of the nearest parent folder that is named after a class.

    Args:
        path: Path of the image below the folder of all images.
        label_of: Labels by the names that a folder may have, as `letters_of` compares them.
        names: These names, for the error message.

    Raises:
        UserError: If no folder is named after a class.
    """
    folders = PurePosixPath(path).parent.parts
    for name in reversed(folders):
        if letters_of(name) in label_of:
            return label_of[letters_of(name)]
    if not folders:
        raise UserError(
            f"--labels-from-folders: image {path} is in no sub-folder; leave the flag out, or sort it into one"
        )
    hint = did_you_mean(folders[-1], names)
    raise UserError(f"--labels-from-folders: folder {folders[-1]!r} is no class; {hint}")


def make_item(folder: Path, entry: Entry, label: int, names: Sequence[str]) -> Datum:
    """Make the Datum of an image of the index.

    Raises:
        UserError: If the file has been removed since it was indexed.
    """
    try:
        return Datum(impath=str(folder / entry.path), label=label, classname=names[label] if label >= 0 else "")
    except AssertionError as error:  # raised by Dassl's Datum, which checks that the file exists
        raise UserError(f"image {folder / entry.path} was there, and is gone; give the command again") from error


def first_of_each_content(images: Sequence[Entry], items: Sequence[Datum]) -> list[Datum]:
    """Keep the first image with each content."""
    return list({entry.digest: item for entry, item in reversed(list(zip(images, items, strict=True)))}.values())[::-1]
