"""Choose images by their content, so that names and order of the files do not matter."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from coft.core.errors import UserError
from coft.core.threads import map_threaded
from coft.images.reading import read_bytes
from dassl.data.datasets import Datum


def content_hashes(paths: Sequence[str]) -> list[str]:
    """SHA-256 of each file, in hexadecimal.

    Raises:
        UserError: If a file cannot be read.
    """
    return list(map_threaded(lambda path: hashlib.sha256(read_bytes(path)).hexdigest(), paths, "hash images"))


def first_by_content(items: Sequence[Datum], count: int, key: str = "NUM_UNLABELED") -> list[Datum]:
    """Choose the first images in the order of their content hashes, which depends on no label and no path.

    Args:
        items: Images to choose from. The chosen images keep their order.
        count: Number of images; 0 for all.
        key: Key of the section DATASET with this number, for the error message.

    Raises:
        UserError: If `count` is negative.
    """
    if count < 0:
        raise UserError(f"DATASET.{key} is {count}; expected a number of images, or 0 for all")
    if not 0 < count < len(items):
        return list(items)
    hashes = content_hashes([item.impath for item in items])
    kept = set(sorted(range(len(items)), key=hashes.__getitem__)[:count])
    return [item for i, item in enumerate(items) if i in kept]
