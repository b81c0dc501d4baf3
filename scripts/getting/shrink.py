"""Write harder copies of a data set, with images that are shrunk to a few pixels and enlarged again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from coft.core.errors import UserError
from coft.images.reading import decode_image, read_bytes
from dassl.data.datasets import Datum
from datasets.image_writer import Picture, write_images
from datasets.torchvision_sets import SETS, read_set, split_file

from .sources import TORCHVISION


def write_shrunk(name: str, root: Path, pixels: int) -> Path:
    """Write a copy of a torchvision set whose images keep their size, but have only the detail of `pixels`.

    Args:
        name: A key of TORCHVISION. The set must be in place.
        root: Data root.
        pixels: Height and width to which images are shrunk, bicubically, before they are enlarged again.

    Returns:
        The data root of the copy. An existing copy is not written again.

    Raises:
        UserError: If the set is not one of torchvision's, or its images cannot be read or written.
    """
    if name not in TORCHVISION:
        raise UserError(f"--shrunk-to does not support {name}; expected one of {', '.join(TORCHVISION)}")
    torchvision_name, copy_root = TORCHVISION[name], root / f"{name}-{pixels}px"
    split = split_file(torchvision_name, copy_root)
    if not split.is_file():
        train, test = read_set(torchvision_name, root)
        parts = {"train": _pictures(train, pixels), "test": _pictures(test, pixels)}
        write_images(split.parent, split.name, SETS[torchvision_name].classnames, parts)
    return copy_root


def _pictures(items: Iterable[Datum], pixels: int) -> Iterator[Picture]:
    for item in items:
        image = decode_image(read_bytes(item.impath), item.impath)
        small = image.resize((pixels, pixels), Image.Resampling.BICUBIC)
        yield small.resize(image.size, Image.Resampling.BICUBIC), item.label
