"""What every data set of the project shares: declared classes, checked images, few shots, base and new classes."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from coft.core.errors import UserError
from coft.core.files import read_json
from coft.engine.class_names import check_classnames
from dassl.data.datasets import DatasetBase, Datum

from .contents import first_by_content
from .folders import spelled

log = logging.getLogger(__name__)
Items = list[Datum]
Row = tuple[str, int, str]  # path, label, class name
UNKNOWN = -1  # label of an image whose class nobody said

UNLABELED = {  # what DATASET.UNLABELED may be, and how results call it
    "train": "training images",
    "train+val": "training and validation images",
    "test": "test images (transductive)",
}


class DeclaredDataset(DatasetBase):
    """A data set whose classes are declared, not found in labels.

    Dassl derives class names from the labels of `train_x`. A label-free method must not depend on them, and
    users' own images have none, so here a data set states its names and the labels only index them.

    Args:
        cfg: Dassl config; DATASET.NUM_SHOTS, SUBSAMPLE_CLASSES, UNLABELED, NUM_UNLABELED and NUM_TEST are read.
        classnames: Names by label, at least two, all different.
        train: Training images; none for a data set that is only for tests. `train_x` has DATASET.NUM_SHOTS of each
            class; they are the ones that CoOp draws from the same list with the same seed.
        val: Validation images, or none.
        test: Test images.

    Attributes:
        unlabeled_part: What the unlabeled images in `train_u` are, in words: DATASET.UNLABELED says which, and
            DATASET.NUM_UNLABELED how many of them, chosen by content.

    Raises:
        UserError: If the class names cannot tell the classes apart, or a key has no such value.
    """

    distinct_names = True  # whether class names that stand twice are refused

    def __init__(
        self, cfg: Any, *, classnames: Sequence[str], train: Items, test: Items, val: Sequence[Datum] = ()
    ) -> None:
        check_classnames(classnames, f"data set {type(self).__name__}", self.distinct_names)
        check_labels([*train, *val, *test], classnames, f"data set {type(self).__name__}")
        chosen = subsample(range(len(classnames)), cfg.DATASET.SUBSAMPLE_CLASSES)
        self._declared = [classnames[label] for label in chosen]
        check_classnames(self._declared, f"DATASET.SUBSAMPLE_CLASSES {cfg.DATASET.SUBSAMPLE_CLASSES}", distinct=False)
        which = "test" if not train else getattr(cfg.DATASET, "UNLABELED", "train")
        if which not in UNLABELED:
            raise UserError(f"DATASET.UNLABELED is {which!r}; expected one of {', '.join(UNLABELED)}")
        self.unlabeled_part = UNLABELED[which]
        shots, train, val = cfg.DATASET.NUM_SHOTS, train or test, list(val)
        unlabeled = {"train": train, "train+val": [*train, *val], "test": test}[which]
        # drawn before classes are left out: so does CoOp, and the draws depend on what was drawn before
        labeled = self.generate_fewshot_dataset(train, num_shots=shots)
        few_val = self.generate_fewshot_dataset(val, num_shots=min(shots, 4)) if val else []
        parts = (keep_classes(items, chosen, len(classnames)) for items in (labeled, unlabeled, few_val, test))
        labeled, unlabeled, few_val, test = parts
        # a plugin with a config of its own may lack our keys
        unlabeled = first_by_content(unlabeled, getattr(cfg.DATASET, "NUM_UNLABELED", 0))
        test = first_by_content(test, getattr(cfg.DATASET, "NUM_TEST", 0), "NUM_TEST")
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


def check_labels(items: Items, classnames: Sequence[str], source: str) -> None:
    """Refuse images of classes that are not declared; -1 is a label that nobody knows.

    Raises:
        UserError: Naming the image.
    """
    for item in items:
        if not -1 <= item.label < len(classnames):
            raise UserError(
                f"{source}: image {item.impath} has label {item.label}, but there are {len(classnames)} classes; "
                f"mend the split file, or fetch it again"
            )


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


def read_split(
    path: Path, image_dir: Path, classnames: Sequence[str] = (), moved: Mapping[str, str] | None = None
) -> tuple[Items, Items, Items]:
    """Read a split file of CoOp's form.

    Args:
        path: JSON file {"train": [[relative path, label, class name], ...], "val": [...], "test": [...]}.
        image_dir: Folder that the paths are relative to.
        classnames: Declared names by label. If they include all names of the file, an image's label is the one that
            its name is declared for; else labels are taken as the file numbers them.
        moved: Where a first folder of the paths is instead, by its name.

    Returns:
        Images of train, val and test.

    Raises:
        UserError: If the file is not of this form or names an image that is not there.
    """
    try:
        parts = read_json(path)
        rows = [[_row(*row) for row in parts[part]] for part in ("train", "val", "test")]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"split file {path}: expected JSON with train, val and test lists of [path, label, class name] "
            f"({type(error).__name__}: {error}); fetch the file again"
        ) from error
    if not rows[2]:
        raise UserError(f"split file {path}: has no test image; fetch the file again")
    if classnames:
        rows = _follow_names(rows, classnames, path)
    places = {f"{first}/": f"{place}/" for first, place in (moved or {}).items()}
    train, val, test = ([datum(image_dir / _moved(p, places), y, name) for p, y, name in part] for part in rows)
    return train, val, test


def _row(path: Any, label: Any, name: Any) -> Row:
    """An image of a split, as it is meant.

    Raises:
        ValueError: If it is none: True is no label, and a path that leads out of the data set is none of its images.
    """
    if not (isinstance(path, str) and type(label) is int and isinstance(name, str)):
        raise ValueError(f"{[path, label, name]!r:.80}")
    if label < UNKNOWN or "\0" in path or PurePath(path).is_absolute() or ".." in PurePath(path).parts:
        raise ValueError(f"label {label} or path {path!r:.80} is none")
    return path, label, name


def _follow_names(rows: list[list[Row]], classnames: Sequence[str], path: Path) -> list[list[Row]]:
    """Number the classes as they are declared: files of other makers may count them in another order."""
    declared = {spelled(name): label for label, name in enumerate(classnames)}
    others = {name for part in rows for _, _, name in part if spelled(name) not in declared}
    if others:
        log.warning("%s names classes that are not declared (%s): labels as it has them", path, sorted(others)[0])
        highest = max(label for part in rows for _, label, _ in part)
        if highest >= len(classnames):
            raise UserError(f"split file {path}: label {highest}, but there are {len(classnames)} classes; mend it")
        return rows
    return [[(p, declared[spelled(name)], name) for p, _, name in part] for part in rows]


def _moved(path: str, places: Mapping[str, str]) -> str:
    for first, place in places.items():
        if path.startswith(first):
            return place + path[len(first) :]
    return path


def datum(path: Path, label: int, classname: str) -> Datum:
    """Make a Datum, naming the file when it is missing.

    Raises:
        UserError: If there is no such file.
    """
    try:
        return Datum(impath=str(path), label=label, classname=classname)
    except AssertionError as error:  # Dassl looks for the file: no need to look twice
        raise UserError(
            f"image {path} is missing, though the data set's split names it; extract the data again"
        ) from error


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
