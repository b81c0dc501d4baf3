"""Write data sets given as arrays to image files: `<root>/images/<part>/*.png` and a split file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from coft.core.errors import UserError

Picture = tuple[Image.Image, int]
Row = tuple[str, int, str]


def write_images(root: Path, split: str, classnames: Sequence[str], parts: Mapping[str, Iterable[Picture]]) -> None:
    """Write a data set to disk. The split file is written last, so that its existence means a complete data set.

    Args:
        root: Folder of the data set. Other files in it are kept.
        split: Name of the split file.
        classnames: Class names by label.
        parts: Images and labels of "train" and "test".

    Raises:
        UserError: If the folder cannot be written, or already holds images.
    """
    draft = root / f".images.{os.getpid()}.tmp"
    try:
        rows = {part: _write_part(draft, part, classnames, pictures) for part, pictures in parts.items()}
        split_draft = draft / split
        split_draft.write_text(json.dumps({"train": [], "val": [], "test": []} | rows), encoding="utf-8")
        (draft / "images").rename(root / "images")  # fails if the folder is not empty
        split_draft.replace(root / split)
    except OSError as error:
        if not (root / split).is_file():  # otherwise another process was faster
            raise UserError(
                f"cannot write {root / 'images'} ({error}); remove what is there, or set DATA to another folder"
            ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_part(draft: Path, part: str, classnames: Sequence[str], pictures: Iterable[Picture]) -> list[Row]:
    """Write images with numbers as names, so that no file name contains a class."""
    (draft / "images" / part).mkdir(parents=True)
    rows = []
    for number, (image, label) in enumerate(tqdm(pictures, f"write {part} images", disable=None, leave=False)):
        name = f"{part}/{number:06d}.png"
        image.save(draft / "images" / name)
        rows.append((name, int(label), classnames[label]))
    return rows
