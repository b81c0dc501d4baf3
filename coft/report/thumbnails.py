"""Thumbnails as data URIs, as many as a budget in bytes allows."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from functools import partial

from PIL import Image

from coft.core.errors import UserError
from coft.core.threads import map_threaded
from coft.images.reading import Decoding, decode_image, read_bytes

QUALITY = 55
BROKEN = ""  # data URI of a file that cannot be read


def small_picture(path: str, side: int) -> Image.Image | None:
    """Return a thumbnail of an image with at most `side` pixels on its longer side; None if it cannot be read."""
    try:
        image = decode_image(read_bytes(path), path, Decoding(enough=side))
    except (UserError, ValueError, MemoryError):  # ValueError: a path with a zero byte
        return None
    image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return image


def data_uri(path: str, side: int) -> str:
    """Return a thumbnail of an image as a data URI; `BROKEN` if it cannot be read."""
    image = small_picture(path, side)
    if image is None:
        return BROKEN
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def embed(paths: Sequence[str], budget: int, side: int) -> list[str | None]:
    """Encode thumbnails of images as data URIs, in order, until the budget is used up.

    Args:
        paths: Image files. A file that is listed several times counts each time.
        budget: Upper bound of all data URIs together in bytes.
        side: Longer side in pixels.

    Returns:
        Data URI or `BROKEN` for each path; None from the first path on that exceeds the budget.
    """
    uris: dict[str, str] = {}
    embedded: list[str | None] = []
    unread = _read(list(dict.fromkeys(paths)), side)
    for path in paths:
        while path not in uris:
            name, uri = next(unread)
            uris[name] = uri
        budget -= len(uris[path])
        if budget < 0:
            break
        embedded.append(uris[path])
    return embedded + [None] * (len(paths) - len(embedded))


def _read(paths: Sequence[str], side: int) -> Iterator[tuple[str, str]]:
    """Yield paths with their data URIs. Files are read in batches, so that few are read in vain at the budget's end."""
    for start in range(0, len(paths), 512):
        batch = paths[start : start + 512]
        yield from zip(batch, map_threaded(partial(data_uri, side=side), batch, "report: images"), strict=True)
