"""A user's own folder of images, with class names and no labels."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from coft.core.errors import UserError, did_you_mean
from coft.core.files import check_not_inside
from coft.core.paths import expanded
from coft.engine.class_names import Classes, read_classes
from coft.engine.predictions import write_duplicates, write_skipped
from coft.images.image_sources import collect_images
from dassl.data.datasets import DATASET_REGISTRY, Datum

from .base import UNKNOWN, DeclaredDataset
from .folders import Names

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
        image_set = collect_images(folder)
        write_skipped(Path(cfg.OUTPUT_DIR), image_set.skipped)
        label_of_name = folder_names(self.classes)
        labels = [UNKNOWN] * len(image_set)
        if options.LABELS_FROM_FOLDERS:
            below = [Path(name).relative_to(folder).as_posix() for name in image_set.names]
            known_names = Names(label_of_name)
            labels = [folder_label(path, known_names, label_of_name) for path in below]
        if options.SUBSAMPLE_CLASSES != "all":
            raise UserError(
                "DATASET.SUBSAMPLE_CLASSES splits benchmarks; for your own images list the classes you want"
            )
        self.content_hashes = dict(zip(image_set.names, image_set.digests, strict=True))
        items = [make_item(*pair, names) for pair in zip(image_set.names, labels, strict=True)]
        first = set(image_set.distinct())
        distinct = [item for item in items if item.impath in first]
        skipped = len(image_set.skipped)
        log.info("Own images: %d, and %d duplicates; skipped: %d", len(distinct), len(items) - len(distinct), skipped)
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


def folder_label(path: str, labels: Names, names: Iterable[str]) -> int:
    """Return the label of an image: that of the nearest parent folder that is named after a class.

    Args:
        path: Path of the image below the folder of all images.
        labels: Labels by the names that a folder may have.
        names: These names, for the error message.

    Raises:
        UserError: If no folder is named after a class.
    """
    folders = PurePosixPath(path).parent.parts
    for name in reversed(folders):
        if (label := labels.label(name)) is not None:
            return label
    if not folders:
        raise UserError(
            f"--labels-from-folders: image {path} is in no sub-folder; leave the flag out, or sort it into one"
        )
    hint = did_you_mean(folders[-1], names)
    raise UserError(f"--labels-from-folders: folder {folders[-1]!r} is no class; {hint}")


def make_item(path: str, label: int, names: Sequence[str]) -> Datum:
    """Make the Datum of an image.

    Raises:
        UserError: If the file has been removed since it was indexed.
    """
    try:
        return Datum(impath=path, label=label, classname=names[label] if label >= 0 else "")
    except AssertionError as error:  # raised by Dassl's Datum, which checks that the file exists
        raise UserError(f"image {path} was there, and is gone; give the command again") from error
