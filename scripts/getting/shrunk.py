"""Harder copies of a data set: images that are shrunk to a few pixels and enlarged again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from coft.core.errors import UserError
from coft.images.reading import decode_image, read_bytes
from dassl.data.datasets import Datum
from datasets.torchvision_sets import SETS, read_set, split_file
from datasets.written import Picture, write_images

from .sources import TORCHVISION


def shrunk_root(name: str, root: Path, pixels: int) -> Path:
    """The data root that holds a copy: beside the set itself, so that it runs as `--data <root>/<name>-<pixels>px`."""
    return root / f"{name}-{pixels}px"


def write_shrunk(name: str, root: Path, pixels: int) -> Path:
    """Write a copy of a set of torchvision's whose images keep their size and lose what is finer than `pixels`.

    Args:
        name: The set, which is there already.
        root: Data root.
        pixels: Height and width to which images are shrunk, bicubically, before they are enlarged to their own.

    Returns:
        The data root of the copy. Nothing is written where the copy is there.

    Raises:
        UserError: If it is no set of torchvision's, or its images cannot be read or written.
    """
    if name not in TORCHVISION:
        raise UserError(f"--shrunk-to has no way with {name}; expected one of {', '.join(TORCHVISION)}")
    kind, copy = TORCHVISION[name], shrunk_root(name, root, pixels)
    split = split_file(kind, copy)
    if not split.is_file():
        train, test = read_set(kind, root)
        parts = {"train": _pictures(train, pixels), "test": _pictures(test, pixels)}
        write_images(split.parent, split.name, SETS[kind].classnames, parts)
    return copy


def _pictures(items: Iterable[Datum], pixels: int) -> Iterator[Picture]:
    for item in items:
        image = decode_image(read_bytes(item.impath), item.impath)
        small = image.resize((pixels, pixels), Image.Resampling.BICUBIC)
        yield small.resize(image.size, Image.Resampling.BICUBIC), item.label
