"""Data sets with changed labels, file order or file names."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Split = dict[str, Any]


def permute_labels(split: Split, folder: Path) -> None:
    labels = [row[1:] for row in split["train"]]
    random.Random(0).shuffle(labels)
    split["train"] = [[row[0], *label] for row, label in zip(split["train"], labels, strict=True)]


def blank_labels(split: Split, folder: Path) -> None:
    split["train"] = [[row[0], -1, ""] for row in split["train"]]


def shuffle_files(split: Split, folder: Path) -> None:
    random.Random(1).shuffle(split["train"])


def hash_names(split: Split, folder: Path) -> None:
    for row in split["train"]:
        path = folder / "images" / row[0]
        row[0] = hashlib.sha256(path.read_bytes()).hexdigest() + ".png"
        path.rename(path.with_name(row[0]))


CHANGES: dict[str, tuple[Callable[[Split, Path], None], ...]] = {
    "labels permuted, files shuffled and renamed": (permute_labels, shuffle_files, hash_names),
    "labels blanked": (blank_labels,),
}


def change_data_set(shapes: Path, target: Path, *changes: Callable[[Split, Path], None]) -> Path:
    shutil.copytree(shapes, target)
    split = json.loads((target / "split.json").read_text())
    for change in changes:
        before = json.dumps(split)
        change(split, target)
        assert json.dumps(split) != before
    (target / "split.json").write_text(json.dumps(split))
    return target
