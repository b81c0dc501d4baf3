"""Make splits as CoOp does: shuffled within each class, with a fixed seed."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterable, Mapping
from pathlib import Path

from coft.core.errors import UserError
from coft.core.files import replacing
from coft.core.untrusted import open_file

from .base import Row

log = logging.getLogger(__name__)
SPLIT_SEED = 1
TRAIN_SHARE, VAL_SHARE = 0.5, 0.2  # shares of training and validation images; the rest is the test
HELD_OUT = 0.2  # share of training images held out for validation if the data set has its own test part

Split = dict[str, list[Row]]
MARK = '{"made_by": "CoFT for Dassl", '  # start of a split file that is not CoOp's; readers ignore the key


def split_by_class(images: Iterable[tuple[str, int, str]]) -> Split:
    """Split the images of each class: half for training, a fifth for validation, the rest for the test.

    Args:
        images: Path, label and class name of each image.

    Raises:
        UserError: If a class has too few images for three parts.
    """
    rng = random.Random(SPLIT_SEED)
    split: Split = {"train": [], "val": [], "test": []}
    for label, rows in _by_label(images).items():
        rng.shuffle(rows)
        num_train, num_val = round(TRAIN_SHARE * len(rows)), round(VAL_SHARE * len(rows))
        end = num_train + num_val
        parts = {"train": rows[:num_train], "val": rows[num_train:end], "test": rows[end:]}
        if not all(parts.values()):
            raise UserError(
                f"class {label} ({rows[0][2]}) has {len(rows)} images, too few to be split in three; add some"
            )
        for part, part_rows in parts.items():
            split[part] += part_rows
    return split


def hold_out(trainval: Iterable[Row], test: Iterable[Row]) -> Split:
    """Hold out a fifth of the training images of each class for validation.

    Args:
        trainval: Rows of the training images.
        test: Rows of the test images.

    Raises:
        UserError: If a class has too few images to hold one out.
    """
    rng = random.Random(SPLIT_SEED)
    split: Split = {"train": [], "val": [], "test": list(test)}
    for label, rows in _by_label(trainval).items():
        rng.shuffle(rows)
        num_val = round(HELD_OUT * len(rows))
        if not num_val:
            raise UserError(
                f"class {label} ({rows[0][2]}) has {len(rows)} training images, too few to hold some out; add some"
            )
        split["val"] += rows[:num_val]
        split["train"] += rows[num_val:]
    return split


def save_split(split: Mapping[str, list[Row]], path: Path) -> None:
    """Write a split file atomically.

    Args:
        split: Rows of each part.
        path: Path of the split file.

    Raises:
        OSError: If the file cannot be written.
    """
    with replacing(path) as draft:
        draft.write_text(MARK + json.dumps(split).removeprefix("{"), encoding="utf-8")
    log.info("Made a split: %s", path)


def is_made_here(path: Path) -> bool:
    """Return whether a split file was written by `save_split`."""
    with open_file(path) as file:
        return file.read(len(MARK)) == MARK.encode()


def _by_label(rows: Iterable[Row]) -> dict[int, list[Row]]:
    """Group rows by label, sorted by path, so that a split does not depend on the order in which files are listed."""
    groups: dict[int, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row[1], row[0])):
        groups.setdefault(row[1], []).append(row)
    return groups
