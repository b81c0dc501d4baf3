"""Intel's scenes: photographs of six kinds of scenes ("Intel Image Classification", public on Kaggle)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coft.core.errors import UserError
from dassl.data.datasets import DATASET_REGISTRY

from .base import DeclaredDataset, dataset_root
from .folders import first_folder, read_folders

CLASSNAMES = ("buildings", "forest", "glacier", "mountain", "sea", "street")
FOLDERS = ("intel", "intel-image-classification", "intel_scenes")
PARTS = {part: (f"seg_{part}/seg_{part}", f"seg_{part}", part) for part in ("train", "test")}


@DATASET_REGISTRY.register()
class IntelScenes(DeclaredDataset):
    """14,034 training and 3,000 test images of 150x150 pixels; there is no validation part.

    Layout below `<root>/intel/`: Kaggle's `seg_train/seg_train/<class>/*.jpg` and `seg_test/seg_test/<class>/*.jpg`, or
    the same nested only once, or `train/<class>/` and `test/<class>/`. Kaggle's `seg_pred`, which has no labels, is not
    read. `FOLDERS` has other accepted names of the folder.
    """

    dataset_dir = FOLDERS[0]

    def __init__(self, cfg: Any) -> None:
        root = require_root(dataset_root(cfg))
        self.dataset_dir = str(root)
        train, test = (read_folders(find_part(root, part), CLASSNAMES) for part in PARTS)
        super().__init__(cfg, classnames=CLASSNAMES, train=train, test=test)


def find_root(data: Path) -> Path | None:
    """Return the first folder below the data root that has a training and a test part; None if there is none."""
    roots = (data / name for name in FOLDERS)
    return next((root for root in roots if all(first_folder(root, nestings) for nestings in PARTS.values())), None)


def require_root(data: Path) -> Path:
    """Return the first folder below the data root that has a training and a test part.

    Raises:
        UserError: If there is no such folder.
    """
    if root := find_root(data):
        return root
    root = first_folder(data, FOLDERS) or data / FOLDERS[0]
    absent_parts = [part for part, nestings in PARTS.items() if not first_folder(root, nestings)]
    missing = f"seg_{absent_parts[0]} or {absent_parts[0]}" if root.is_dir() else root.name
    raise UserError(
        f"IntelScenes: no {missing} at {root}; see: bash scripts/data.sh intel, or set DATA to the folder that has it"
    )


def find_part(root: Path, part: str) -> Path:
    """Return the folder that holds the class folders of "train" or "test"."""
    folder = first_folder(root, PARTS[part])
    assert folder is not None  # `require_root` has checked it
    return folder
