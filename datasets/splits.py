"""Making a split where there is none, the way CoOp makes it: shuffled within each class, with a fixed seed."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterable, Mapping
from pathlib import Path

from coft.core.errors import UserError
from coft.core.files import replacing

from .base import Row

log = logging.getLogger(__name__)
SPLIT_SEED = 1
TRAIN_SHARE, VAL_SHARE = 0.5, 0.2  # the rest is for the test
HELD_OUT = 0.2  # of the training images of a data set that has a test part of its own

Split = dict[str, list[Row]]


def split_by_class(images: Iterable[tuple[str, int, str]]) -> Split:
    """Split each class's images: a half for training, a fifth for validation, the rest for the test.

    Args:
        images: Path, label and class name of each.

    Raises:
        UserError: If a class has too few for one of the parts.
    """
    rng = random.Random(SPLIT_SEED)
    split: Split = {"train": [], "val": [], "test": []}
    for label, rows in _by_label(images).items():
        rng.shuffle(rows)
        first, second = round(TRAIN_SHARE * len(rows)), round(VAL_SHARE * len(rows))
        parts = {"train": rows[:first], "val": rows[first : first + second], "test": rows[first + second :]}
        if not all(parts.values()):
            raise UserError(
                f"class {label} ({rows[0][2]}) has {len(rows)} images, too few to be split in three; add some"
            )
        for part, chosen in parts.items():
            split[part] += chosen
    return split


def hold_out(trainval: Iterable[Row], test: Iterable[Row]) -> Split:
    """Hold a fifth of each class's training images out for validation.

    Raises:
        UserError: If a class has too few for it.
    """
    rng = random.Random(SPLIT_SEED)
    split: Split = {"train": [], "val": [], "test": list(test)}
    for label, rows in _by_label(trainval).items():
        rng.shuffle(rows)
        held_out = round(HELD_OUT * len(rows))
        if not held_out:
            raise UserError(
                f"class {label} ({rows[0][2]}) has {len(rows)} training images, too few to hold some out; add some"
            )
        split["val"] += rows[:held_out]
        split["train"] += rows[held_out:]
    return split


def save_split(split: Mapping[str, list[Row]], path: Path) -> None:
    """Write a split file, whole or not at all.

    Raises:
        OSError: If it cannot be written.
    """
    with replacing(path) as draft:
        draft.write_text(json.dumps(split), encoding="utf-8")
    log.info("Made a split: %s", path)


def _by_label(rows: Iterable[Row]) -> dict[int, list[Row]]:
    """Group rows by label, each in order of path: the split must not depend on the order in which files are listed."""
    groups: dict[int, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row[1], row[0])):
        groups.setdefault(row[1], []).append(row)
    return groups
