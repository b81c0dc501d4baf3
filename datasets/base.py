"""What every data set of the project shares: declared classes, checked images, few shots, base and new classes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dassl.data.datasets import DatasetBase, Datum

from .contents import first_by_content
from .errors import UserError

Items = list[Datum]


class DeclaredDataset(DatasetBase):
    """A data set whose classes are declared, not found in labels.

    Dassl derives class names from the labels of `train_x`. A label-free method must not depend on them, and
    users' own images have none, so here a data set states its names and the labels only index them.

    Args:
        cfg: Dassl config; DATASET.NUM_SHOTS, DATASET.SUBSAMPLE_CLASSES and DATASET.NUM_UNLABELED are read.
        classnames: Names by label, at least two, all different.
        train: Training images. They are the unlabeled set, or DATASET.NUM_UNLABELED of them, chosen by content;
            `train_x` has DATASET.NUM_SHOTS of each class.
        val: Validation images, or none.
        test: Test images.

    Raises:
        UserError: If the class names cannot tell the classes apart.
    """

    def __init__(
        self, cfg: Any, *, classnames: Sequence[str], train: Items, test: Items, val: Sequence[Datum] = ()
    ) -> None:
        check_classnames(classnames, type(self).__name__)
        chosen = subsample(range(len(classnames)), cfg.DATASET.SUBSAMPLE_CLASSES)
        self._declared = [classnames[label] for label in chosen]
        train, val, test = (keep_classes(items, chosen, len(classnames)) for items in (train, list(val), test))
        shots = cfg.DATASET.NUM_SHOTS
        labeled = self.generate_fewshot_dataset(train, num_shots=shots)
        few_val = self.generate_fewshot_dataset(val, num_shots=min(shots, 4)) if val else []
        # a plugin with a config of its own may lack our keys
        unlabeled = first_by_content(train, getattr(cfg.DATASET, "NUM_UNLABELED", 0))
        super().__init__(train_x=labeled, train_u=unlabeled, val=few_val or None, test=test)

    @property
    def classnames(self) -> list[str]:
        """Declared class names, by label."""
        return list(self._declared)

    @property
    def lab2cname(self) -> dict[int, str]:
        """Mapping of labels to class names."""
        return dict(enumerate(self._declared))

    @property
    def num_classes(self) -> int:
        """Number of declared classes, whether or not each has an image."""
        return len(self._declared)


def check_classnames(classnames: Sequence[str], dataset: str) -> None:
    """Refuse class names that no classifier could be built on.

    Raises:
        UserError: On fewer than two names, on an empty one, or on one that stands twice.
    """
    if len(classnames) < 2:
        raise UserError(
            f"data set {dataset}: a classifier needs at least two class names, {len(classnames)} given; "
            f"add the missing names"
        )
    seen: dict[str, int] = {}
    for label, name in enumerate(classnames):
        plain = " ".join(name.replace("_", " ").lower().split())
        if not plain:
            raise UserError(f"data set {dataset}: class {label} has an empty name; give it one")
        if plain in seen:
            raise UserError(
                f"data set {dataset}: classes {seen[plain]} and {label} have the same name {name!r}; "
                f"rename one, or merge them"
            )
        seen[plain] = label


def subsample(labels: Sequence[int], which: str) -> list[int]:
    """Choose CoOp's base or new classes: the first half of the labels (rounded up), or the rest.

    Raises:
        UserError: If `which` is not "all", "base" or "new".
    """
    half = math.ceil(len(labels) / 2)
    halves = {"all": labels, "base": labels[:half], "new": labels[half:]}
    if which not in halves:
        raise UserError(f"DATASET.SUBSAMPLE_CLASSES is {which!r}; expected one of {', '.join(halves)}")
    return list(halves[which])


def keep_classes(items: Items, chosen: Sequence[int], num_classes: int) -> Items:
    """Keep the images of the chosen classes and number their labels from 0.

    With all classes chosen the images stay as they are, whatever their labels say.
    """
    if len(chosen) == num_classes:
        return items
    relabel = {label: new for new, label in enumerate(chosen)}
    return [
        Datum(impath=item.impath, label=relabel[item.label], domain=item.domain, classname=item.classname)
        for item in items
        if item.label in relabel
    ]


def read_split(path: Path, image_dir: Path) -> tuple[Items, Items, Items]:
    """Read a split file of CoOp's form.

    Args:
        path: JSON file {"train": [[relative path, label, class name], ...], "val": [...], "test": [...]}.
        image_dir: Folder that the paths are relative to.

    Returns:
        Images of train, val and test.

    Raises:
        UserError: If the file is not of this form or names an image that is not there.
    """
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))
        rows = [
            [(str(p), int(label), str(name)) for p, label, name in parts[part]] for part in ("train", "val", "test")
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"split file {path}: expected JSON with train, val and test lists of [path, label, class name] "
            f"({type(error).__name__}: {error}); fetch the file again"
        ) from error
    train, val, test = ([datum(image_dir / p, label, name) for p, label, name in part] for part in rows)
    return train, val, test


def datum(path: Path, label: int, classname: str) -> Datum:
    """Make a Datum, naming the file when it is missing.

    Raises:
        UserError: If there is no such file.
    """
    if not path.is_file():
        raise UserError(f"image {path} is missing, though the data set's split names it; extract the data again")
    return Datum(impath=str(path), label=label, classname=classname)


def dataset_root(cfg: Any) -> Path:
    """Return the folder of all data sets (DATASET.ROOT, which the scripts take from $DATA)."""
    return Path(cfg.DATASET.ROOT or "data").expanduser().resolve()


def require(path: Path, dataset: str, how: str) -> Path:
    """Return the path, or say in one line what is missing, where it was looked for, and what to do.

    Raises:
        UserError: If nothing is at `path`.
    """
    if not path.exists():
        raise UserError(f"{dataset}: no {path.name} at {path}; {how}")
    return path
