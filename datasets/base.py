"""Base class of all data sets: declared classes, checked images, few shots, base and new classes."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from coft.core import schemas
from coft.core.errors import UserError
from coft.core.paths import expanded
from coft.core.schemas import Anything, List, PathText, Record, Text, whole
from coft.core.untrusted import read_json
from coft.engine.class_names import check_classnames
from dassl.data.datasets import DatasetBase, Datum

from .contents import choose_pool, first_by_content
from .folders import Names, datum

log = logging.getLogger(__name__)
Items = list[Datum]
Row = tuple[str, int, str]  # path, label, class name
UNKNOWN = -1  # label of an image whose class is not known

UNLABELED = {  # values of DATASET.UNLABELED, with their names in results
    "train": "training images",
    "train+val": "training and validation images",
    "test": "test images (transductive)",
}


class DeclaredDataset(DatasetBase):
    """A data set whose class names are declared.

    Dassl derives class names from the labels of `train_x`. A label-free method must not depend on labels, and a user's
    own images have none. A data set of this class therefore declares its class names, and labels only index them.

    Args:
        cfg: Dassl config. The keys NUM_SHOTS, SUBSAMPLE_CLASSES, UNLABELED, NUM_UNLABELED, POOL, RATIO and NUM_TEST of
            its section DATASET are read.
        classnames: Class names by label: at least two, all different.
        train: Training images; empty for a data set that only has a test part. `train_x` gets DATASET.NUM_SHOTS images
            of each class, the same that CoOp draws from this list with this seed.
        val: Validation images, if there are any.
        test: Test images.

    Attributes:
        only_tests: Whether all images are test images.
        unlabeled_part: Description of the images in `train_u`. DATASET.UNLABELED chooses the part, and
            DATASET.NUM_UNLABELED the number of images, which are chosen by content.

    Raises:
        UserError: If class names are not distinct, or a key has a wrong value.
    """

    distinct_names = True  # whether repeated class names are an error

    def __init__(
        self, cfg: Any, *, classnames: Sequence[str], train: Items, test: Items, val: Sequence[Datum] = ()
    ) -> None:
        check_classnames(classnames, f"data set {type(self).__name__}", self.distinct_names)
        check_labels([*train, *val, *test], classnames, f"data set {type(self).__name__}")
        labels = subsample(range(len(classnames)), cfg.DATASET.SUBSAMPLE_CLASSES)
        self._declared = [classnames[label] for label in labels]
        check_classnames(self._declared, f"DATASET.SUBSAMPLE_CLASSES {cfg.DATASET.SUBSAMPLE_CLASSES}", distinct=False)
        self.only_tests = not train
        part = "test" if not train else getattr(cfg.DATASET, "UNLABELED", "train")
        if part not in UNLABELED:
            raise UserError(f"DATASET.UNLABELED is {part!r}; expected one of {', '.join(UNLABELED)}")
        ratio = getattr(cfg.DATASET, "RATIO", 1.0)
        self.unlabeled_part = UNLABELED[part] + (f", drawn {ratio:g}:1 by their labels" if ratio > 1 else "")
        shots, train, val = cfg.DATASET.NUM_SHOTS, train or test, list(val)
        unlabeled = {"train": train, "train+val": [*train, *val], "test": test}[part]
        # As in CoOp, shots are drawn before classes are dropped: each draw depends on the preceding ones.
        labeled = self.generate_fewshot_dataset(train, num_shots=shots)
        few_val = self.generate_fewshot_dataset(val, num_shots=min(shots, 4)) if val else []
        parts = (keep_classes(items, labels, len(classnames)) for items in (labeled, unlabeled, few_val, test))
        labeled, unlabeled, few_val, test = parts
        # The config of another plugin may lack these keys.
        unlabeled = choose_pool(unlabeled, cfg.DATASET, self._declared)
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
        """Number of declared classes, with or without images."""
        return len(self._declared)


def check_labels(items: Items, classnames: Sequence[str], source: str) -> None:
    """Check that the label of each image is that of a declared class, or `UNKNOWN`.

    Args:
        items: Images to check.
        classnames: Class names by label.
        source: Name of the data set, for the error message.

    Raises:
        UserError: If an image has another label.
    """
    for item in items:
        if not -1 <= item.label < len(classnames):
            raise UserError(
                f"{source}: image {item.impath} has label {item.label}, but there are {len(classnames)} classes; "
                f"mend the split file, or fetch it again"
            )


def subsample(labels: Sequence[int], half: str) -> list[int]:
    """Choose CoOp's base or new classes.

    Args:
        labels: All labels.
        half: "all", "base" for the first half (rounded up), or "new" for the rest.

    Raises:
        UserError: If `half` has another value.
    """
    middle = math.ceil(len(labels) / 2)
    parts = {"all": labels, "base": labels[:middle], "new": labels[middle:]}
    if half not in parts:
        raise UserError(f"DATASET.SUBSAMPLE_CLASSES is {half!r}; expected one of {', '.join(parts)}")
    return list(parts[half])


def keep_classes(items: Items, labels: Sequence[int], num_classes: int) -> Items:
    """Keep the images of some classes, and renumber their labels from 0.

    Args:
        items: Images of all classes.
        labels: Labels of the classes to keep. With all classes the images are returned unchanged.
        num_classes: Number of all classes.
    """
    if len(labels) == num_classes:
        return items
    relabel = {label: new_label for new_label, label in enumerate(labels)}
    return [
        Datum(impath=item.impath, label=relabel[item.label], domain=item.domain, classname=item.classname)
        for item in items
        if item.label in relabel
    ]


PARTS = ("train", "val", "test")
MOST_ROWS = 100_000_000
POOL = List(schemas.Row((PathText(), whole(UNKNOWN, 1_000_000), Text(1000))), most=MOST_ROWS)  # labels may be unknown
LABELLED = List(schemas.Row((PathText(), whole(0, 1_000_000), Text(1000))), most=MOST_ROWS)
SCHEMA = Record({"train": POOL, "val": LABELLED, "test": LABELLED}, others=Anything())


def read_split(
    path: Path, image_dir: Path, classnames: Sequence[str] = (), new_folders: Mapping[str, str] | None = None
) -> tuple[Items, Items, Items]:
    """Read a split file in the format of CoOp.

    Args:
        path: JSON file {"train": [[relative path, label, class name], ...], "val": [...], "test": [...]}. Labels of
            train may be `UNKNOWN`, with any name.
        image_dir: Folder that the paths are relative to.
        classnames: Declared names by label. If they include all names in the file, the name of an image determines its
            label. Otherwise the labels of the file are used.
        new_folders: Replacements for the first folder of a path, by its name.

    Returns:
        Images of train, val and test.

    Raises:
        UserError: If the file has another format, or an image is missing.
    """
    try:
        parts = read_json(path)
        SCHEMA.check(parts)
        rows: list[list[Row]] = [[within(*row) for row in parts[part]] for part in PARTS]
    except (OSError, ValueError) as error:
        raise UserError(
            f"split file {path}: expected JSON with train, val and test lists of [path, label, class name] "
            f"({type(error).__name__}: {error}); fetch the file again"
        ) from error
    if not rows[2]:
        raise UserError(f"split file {path}: has no test image; fetch the file again")
    if classnames:
        rows = _follow_names(rows, classnames, path)
    return items_of(dict(zip(PARTS, rows, strict=True)), image_dir, new_folders or {})


def items_of(
    split: Mapping[str, Sequence[Row]], image_dir: Path, new_folders: Mapping[str, str]
) -> tuple[Items, Items, Items]:
    """Convert the rows of train, val and test to images.

    Args:
        split: Rows of each part.
        image_dir: Folder that the paths are relative to.
        new_folders: Replacements for the first folder of a path, by its name.

    Raises:
        UserError: If an image is missing.
    """
    prefixes = {f"{old}/": f"{folder}/" for old, folder in new_folders.items()}
    train, val, test = (
        [datum(image_dir / _replace_prefix(path, prefixes), label, name) for path, label, name in split[part]]
        for part in PARTS
    )
    return train, val, test


def within(path: str, label: int, name: str) -> Row:
    """Build a row of a split file or of annotations, and check that its path stays within the data set.

    Raises:
        ValueError: If the path leads out of the data set.
    """
    if PurePath(path).is_absolute() or ".." in PurePath(path).parts:
        raise ValueError(f"path {path!r:.80} leads out of the data set")
    return path, label, name


def _follow_names(rows: list[list[Row]], classnames: Sequence[str], path: Path) -> list[list[Row]]:
    """Renumber labels as declared, by class name: files of other origins may order the classes differently."""
    names = Names({name: label for label, name in enumerate(classnames)})
    labels = {name: names.label(name) for name in {name for part in rows for _, _, name in part}}
    declared = {name: label for name, label in labels.items() if label is not None}
    if undeclared := labels.keys() - declared.keys():
        log.warning("%s names classes that are not declared (%s): labels as it has them", path, sorted(undeclared)[0])
        highest = max(label for part in rows for _, label, _ in part)
        if highest >= len(classnames):
            raise UserError(f"split file {path}: label {highest}, but there are {len(classnames)} classes; mend it")
        return rows
    return [[(image_path, declared[name], name) for image_path, _, name in part] for part in rows]


def _replace_prefix(path: str, prefixes: Mapping[str, str]) -> str:
    for old, new in prefixes.items():
        if path.startswith(old):
            return new + path[len(old) :]
    return path


def dataset_root(cfg: Any) -> Path:
    """Return the folder of all data sets (DATASET.ROOT, which the scripts take from $DATA)."""
    return expanded(cfg.DATASET.ROOT or "data").resolve()


def require(path: Path, dataset: str, how: str) -> Path:
    """Return a path that must exist.

    Args:
        path: Path to check.
        dataset: Name of the data set, for the error message.
        how: Advice if the path is missing, for the error message.

    Raises:
        UserError: If nothing is at the path.
    """
    if not path.exists():
        raise UserError(f"{dataset}: no {path.name} at {path}; {how}")
    return path
