"""Images known by their content: the same ones are chosen under whatever names, in whatever order they come."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from coft.core.errors import UserError
from coft.core.threads import map_threaded
from coft.images.reading import read_bytes
from dassl.data.datasets import Datum


def content_hashes(paths: Sequence[str]) -> list[str]:
    """SHA-256 of each file.

    Raises:
        UserError: If one cannot be read.
    """
    return list(map_threaded(lambda path: hashlib.sha256(read_bytes(path)).hexdigest(), paths, "hash images"))


def first_by_content(items: Sequence[Datum], count: int, key: str = "NUM_UNLABELED") -> list[Datum]:
    """Choose as many images by the order of their content hashes, which no label and no path has a part in.

    Args:
        items: Images to choose from; they stay in this order.
        count: How many; 0 for all.
        key: What named the number, for the error message.

    Raises:
        UserError: If `count` is negative.
    """
    if count < 0:
        raise UserError(f"DATASET.{key} is {count}; expected a number of images, or 0 for all")
    if not 0 < count < len(items):
        return list(items)
    hashes = content_hashes([item.impath for item in items])
    chosen = set(sorted(range(len(items)), key=hashes.__getitem__)[:count])
    return [item for i, item in enumerate(items) if i in chosen]
