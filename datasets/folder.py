"""A user's own folder of images, with class names and no labels."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from coft.core.errors import UserError, did_you_mean
from coft.core.files import check_apart
from coft.engine.class_names import Classes, read_classes
from coft.engine.predictions import write_rows, write_skipped
from coft.images.index import Entry, index_folder
from dassl.data.datasets import DATASET_REGISTRY, Datum

from .base import UNKNOWN, DeclaredDataset
from .folders import SUFFIXES, spelled

log = logging.getLogger(__name__)


@DATASET_REGISTRY.register()
class Folder(DeclaredDataset):
    """All images below DATASET.IMAGES, flat or nested, and the classes of DATASET.CLASSES.

    All images are unlabeled ones and are predicted in the end. With DATASET.LABELS_FROM_FOLDERS the names of the
    folders count as labels, in the evaluation alone. An image that stands there several times is learned from once.

    Attributes:
        reports_predictions: True: trainers write `predictions.csv`.
        content_hashes: SHA-256 by path, for whoever would have to read the files to know it.
        classes: As they were given.
        descriptions: Sentences by class name, where the file of classes has them.
        synonyms: Other names by class name, likewise.
    """

    dataset_dir = ""
    reports_predictions = True

    def __init__(self, cfg: Any) -> None:
        options = cfg.DATASET
        self.classes = read_classes(options.CLASSES)
        names = self.classes.names
        self.descriptions, self.synonyms = self.classes.descriptions, self.classes.synonyms
        folder = find_folder(options.IMAGES)
        check_apart(folder, Path(cfg.OUTPUT_DIR), "--output-dir")
        self.dataset_dir = str(folder)
        entries = index_folder(folder)
        images = [entry for entry in entries if not entry.problem]
        if not images:
            why = f", such as {entries[0].path}: {entries[0].problem}; give others" if entries else f"; {SUFFIX_HINT}"
            raise UserError(f"--images {folder}: no image that can be read ({len(entries)} found){why}")
        skipped = [(os.fspath(folder / entry.path), entry.problem) for entry in entries if entry.problem]
        write_skipped(Path(cfg.OUTPUT_DIR) / "skipped.csv", skipped)
        known = folder_names(self.classes)
        labels = [folder_label(e.path, known) if options.LABELS_FROM_FOLDERS else UNKNOWN for e in images]
        if options.SUBSAMPLE_CLASSES != "all":
            raise UserError(
                "DATASET.SUBSAMPLE_CLASSES splits benchmarks; for your own images list the classes you want"
            )
        self.content_hashes = {str(folder / entry.path): entry.digest for entry in images}
        items = [make_item(folder, *pair, names) for pair in zip(images, labels, strict=True)]
        distinct = first_of_each(images, items)
        self.duplicates = len(items) - len(distinct)
        write_duplicates(Path(cfg.OUTPUT_DIR) / "duplicates.csv", folder, images)
        log.info(
            "Own images: %d, and %d duplicates; skipped: %d", len(distinct), self.duplicates, len(entries) - len(images)
        )
        super().__init__(cfg, classnames=names, train=distinct, test=items)
        self.unlabeled_part = "images of the folder, which are predicted as well (transductive)"


SUFFIX_HINT = f"files named {', '.join(sorted(SUFFIXES))} are looked for"


def find_folder(images: str) -> Path:
    """Return the folder that holds a user's images.

    Raises:
        UserError: If it is not given, or there is none.
    """
    if not images:
        raise UserError("data set folder: --images is missing; give the folder that has your images")
    folder = Path(images).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"--images {folder}: {'is no folder' if folder.exists() else 'no such folder'}; check the path")
    return folder


def folder_names(classes: Classes) -> dict[str, int]:
    """Labels by what folders may be named after: a class, or a synonym; where both would do, the class."""
    named = list(enumerate(classes.names))
    return {other: label for label, name in named for other in classes.synonyms.get(name, ())} | {
        name: label for label, name in named
    }


def folder_label(path: str, known: Mapping[str, int]) -> int:
    """Label of an image by the nearest folder that is named after a class.

    Args:
        path: Of the image, below the folder of all images.
        known: As of `folder_names`.

    Raises:
        UserError: If there is none.
    """
    by_spelling = {spelled(name): label for name, label in known.items()}
    folders = PurePosixPath(path).parent.parts
    for name in reversed(folders):
        if spelled(name) in by_spelling:
            return by_spelling[spelled(name)]
    if not folders:
        raise UserError(
            f"--labels-from-folders: image {path} is in no sub-folder; leave the flag out, or sort it into one"
        )
    raise UserError(f"--labels-from-folders: folder {folders[-1]!r} is no class; {did_you_mean(folders[-1], known)}")


def make_item(folder: Path, entry: Entry, label: int, names: Sequence[str]) -> Datum:
    """Make a Datum of an indexed image."""
    return Datum(impath=str(folder / entry.path), label=label, classname=names[label] if label >= 0 else "")


def first_of_each(images: Sequence[Entry], items: Sequence[Datum]) -> list[Datum]:
    """Keep one image of each content."""
    return list({entry.digest: item for entry, item in reversed(list(zip(images, items, strict=True)))}.values())[::-1]


def write_duplicates(path: Path, folder: Path, images: Sequence[Entry]) -> None:
    """Write which files have the same content; without any, no such file is left."""
    groups: dict[str, list[Entry]] = {}
    for entry in images:
        groups.setdefault(entry.digest, []).append(entry)
    several = [group for group in groups.values() if len(group) > 1]
    rows = [[str(number), os.fspath(folder / e.path)] for number, group in enumerate(several, 1) for e in group]
    write_rows(path, ["group", "path"], rows)
