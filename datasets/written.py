"""Data sets that come as arrays, written out as image files: `<root>/images/<part>/*.png` and a split file."""

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
    """Write a data set to disk; the split file comes last, so that it is there when all the rest is.

    Args:
        root: Folder of the data set; what else is in it stays as it is.
        split: Name of the split file.
        classnames: Names by label.
        parts: Images and labels of "train" and "test".

    Raises:
        UserError: If the folder cannot be written, or holds images already.
    """
    draft = root / f".images.{os.getpid()}.tmp"
    try:
        rows = {part: _write_part(draft, part, classnames, pictures) for part, pictures in parts.items()}
        table = draft / split
        table.write_text(json.dumps({"train": [], "val": [], "test": []} | rows), encoding="utf-8")
        (draft / "images").rename(root / "images")  # refuses a folder that holds something
        table.replace(root / split)
    except OSError as error:
        if not (root / split).is_file():  # else another process was faster
            raise UserError(
                f"cannot write {root / 'images'} ({error}); remove what is there, or set DATA to another folder"
            ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_part(draft: Path, part: str, classnames: Sequence[str], pictures: Iterable[Picture]) -> list[Row]:
    """Write images numbered in their order; no name tells a class."""
    (draft / "images" / part).mkdir(parents=True)
    rows = []
    for number, (image, label) in enumerate(tqdm(pictures, f"write {part} images", disable=None, leave=False)):
        name = f"{part}/{number:06d}.png"
        image.save(draft / "images" / name)
        rows.append((name, int(label), classnames[label]))
    return rows
