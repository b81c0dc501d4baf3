"""The UCI handwritten digits that come with scikit-learn: real images without a download."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from coft.core.errors import UserError
from dassl.data.datasets import DATASET_REGISTRY

from .base import DeclaredDataset, dataset_root, read_split

CLASSNAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEST_IMAGES = 540  # 30 % of 1,797
SPLIT_SEED = 0


@DATASET_REGISTRY.register()
class Digits(DeclaredDataset):
    """1,797 handwritten digits of 8x8 pixels and 17 grey levels: 1,257 training and 540 test images.

    The images are written as PNG under `<root>/digits` on first use. The split is random with a fixed seed.
    """

    dataset_dir = "digits"

    def __init__(self, cfg: Any) -> None:
        root = dataset_root(cfg) / "digits"
        self.dataset_dir = str(root)
        split = root / "split_digits.json"
        if not split.is_file():
            write_digits(root)
        train, val, test = read_split(split, root / "images")
        super().__init__(cfg, classnames=CLASSNAMES, train=train, val=val, test=test)


def write_digits(root: Path) -> None:
    """Write scikit-learn's digits and their split to a temporary folder, which is then renamed.

    Args:
        root: Folder of the data set.

    Raises:
        UserError: If the folder cannot be written.
    """
    draft = root.with_name(f"{root.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        (draft / "images").mkdir(parents=True)
        rows = [_write_image(draft / "images", *item) for item in _digits()]
        (draft / "split_digits.json").write_text(json.dumps(_split(rows)), encoding="utf-8")
        draft.rename(root)  # fails if the folder is not empty
    except OSError as error:
        if (root / "split_digits.json").is_file():  # another process was faster
            return
        raise UserError(
            f"digits: cannot write {root} ({error}); set DATA to a folder where it may be written"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _digits() -> list[tuple[int, np.ndarray, int]]:
    state = random.getstate()  # importing rich, a possible dependency of scikit-learn, draws random numbers
    from sklearn.datasets import load_digits

    random.setstate(state)
    data = load_digits()
    levels = np.rint(data.images * (255 / 16)).astype(np.uint8)
    return [(i, image, int(label)) for i, (image, label) in enumerate(zip(levels, data.target, strict=True))]


def _write_image(folder: Path, index: int, image: np.ndarray, label: int) -> tuple[str, int, str]:
    name = f"digit_{index:04d}.png"
    Image.fromarray(image).save(folder / name)
    return name, label, CLASSNAMES[label]


def _split(rows: list[tuple[str, int, str]]) -> dict[str, list[tuple[str, int, str]]]:
    order = np.random.default_rng(SPLIT_SEED).permutation(len(rows))
    test = set(order[:TEST_IMAGES].tolist())
    return {
        "train": [row for i, row in enumerate(rows) if i not in test],
        "val": [],
        "test": [row for i, row in enumerate(rows) if i in test],
    }
