"""Small pictures of images as text of a page, as many as a number of bytes allows; and a hash of their looks."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
from PIL import Image

from coft.core.errors import UserError
from coft.core.threads import map_threaded
from coft.images.reading import Decoding, decode_image, read_bytes

SIDE = 96  # pixels of the longer side
QUALITY = 55
BROKEN = ""  # in the place of a picture whose file cannot be read
HASH = 8  # rows and columns of the differences that a hash is made of


def small_picture(path: str, side: int = SIDE) -> Image.Image | None:
    """An image, made small; None if it cannot be read."""
    try:
        image = decode_image(read_bytes(path), path, Decoding(enough=side))
    except (UserError, ValueError, MemoryError):  # ValueError: a path with a zero byte
        return None
    image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return image


def data_uri(path: str, side: int = SIDE) -> str:
    """A small picture of an image as a data URI; `BROKEN` if it cannot be read."""
    image = small_picture(path, side)
    if image is None:
        return BROKEN
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def embed(paths: Sequence[str], budget: int, side: int = SIDE) -> list[str | None]:
    """Pictures of images, the first ones first, until they have so many bytes together.

    Args:
        paths: Image files; one that is there several times counts each time.
        budget: Bytes.
        side: Pixels of the longer side.

    Returns:
        For each path its data URI, `BROKEN`, or None from where there is no room left.
    """
    known: dict[str, str] = {}
    found: list[str | None] = []
    new = iter(_read(list(dict.fromkeys(paths)), side))
    for path in paths:
        while path not in known:
            name, uri = next(new)
            known[name] = uri
        budget -= len(known[path])
        if budget < 0:
            break
        found.append(known[path])
    return found + [None] * (len(paths) - len(found))


def _read(paths: Sequence[str], side: int) -> Iterable[tuple[str, str]]:
    """Paths with their data URIs, some at a time: no more is read than there is room for."""
    for start in range(0, len(paths), 512):
        some = paths[start : start + 512]
        yield from zip(some, map_threaded(partial(data_uri, side=side), some, "report: images"), strict=True)


def looks(path: str) -> np.ndarray | None:
    """A hash of what an image looks like: where its brightness rises from left to right. None if it cannot be read.

    Returns:
        Shape (64,), bool.
    """
    image = small_picture(path, 64)
    if image is None:
        return None
    grey = np.asarray(image.convert("L").resize((HASH + 1, HASH), Image.Resampling.BILINEAR), dtype=np.int16)
    return (grey[:, 1:] > grey[:, :-1]).flatten()
