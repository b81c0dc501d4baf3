"""Images as a program gives them: a folder, files, or images in memory. No label is looked at."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from coft.core.errors import UserError
from coft.core.files import check_there
from coft.core.progress import bar
from coft.core.threads import map_threaded
from coft.core.words import counted
from coft.images.index import Entry, index_folder, list_images, look_at
from coft.images.reading import SUFFIXES, read_bytes, rgb

log = logging.getLogger(__name__)
EXPECTED = (
    "expected a folder, paths of files, images of Pillow, an array of shape (N, H, W, 3) with dtype uint8, or a Dataset"
)


@dataclass(frozen=True)
class GivenImages:
    """Images that a user gave, those that cannot be read left out.

    Attributes:
        names: Path of each file, or number of each image in memory as text.
        digests: Hash of each content.
        read: Gives the bytes of a name, as an image file has them.
        of_files: Whether the names are paths.
        skipped: What was left out: name and problem.
    """

    names: list[str]
    digests: list[str]
    read: Callable[[str], bytes] = read_bytes
    of_files: bool = True
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def first_of_content(self) -> dict[str, str]:
        """Name of the first image of each content, by digest, in their order."""
        return {digest: name for name, digest in reversed(list(zip(self.names, self.digests, strict=True)))}

    def distinct(self) -> list[str]:
        """Names of the images without duplicates: the first of each content."""
        first = set(self.first_of_content.values())
        return [name for name in self.names if name in first]


def given_images(images: Any) -> GivenImages:
    """Take images in whatever form they come; files that cannot be read are left out, and counted in a warning.

    Args:
        images: A folder, flat or nested, or whatever `sequence_of` takes.

    Raises:
        UserError: If it is nothing of this kind, or there is no image that can be read.
    """
    if is_place(images) and Path(images).expanduser().is_dir():
        folder = Path(images).expanduser().resolve()
        found = _of_entries(folder, index_folder(folder))
    elif holds_paths(items := sequence_of(images)):
        entries = [Entry(os.fspath(path), 0, 0) for path in items]
        found = _of_entries(Path(), list(map_threaded(partial(look_at, Path()), entries, "read images")))
    else:
        found = _in_memory(items)
    if not found.names:
        hint = f"files named {', '.join(sorted(SUFFIXES))} are looked for" if found.of_files else EXPECTED
        raise UserError(f"images: no image that can be read ({len(found.skipped)} found); {hint}")
    if found.skipped:
        name, problem = found.skipped[0]
        count = counted(len(found.skipped), "file")
        log.warning("Skipped %s that cannot be read, such as %s (%s)", count, name, problem)
    return found


def sequence_of(images: Any) -> Any:
    """What can be gone through by number: paths, or images in memory.

    Args:
        images: A folder or file; paths; Pillow's images or arrays, (H, W) or (H, W, 3) each; an array (N, H, W) or
            (N, H, W, 3), uint8; a tensor (N, 3, H, W), uint8 or floats from 0 to 1; or a map-style Dataset of any of
            them, alone or first in a tuple, whose other entries are not looked at. A Dataset has to give the same image
            each time.

    Raises:
        UserError: If it is nothing of this kind.
    """
    if is_place(images):
        place = Path(images).expanduser()
        check_there(place)
        if place.is_dir():
            return sorted(str(place.resolve() / entry.path) for entry in list_images(place.resolve()))
        return [str(place)]
    if not (hasattr(images, "__getitem__") and hasattr(images, "__len__")) or isinstance(images, (dict, Image.Image)):
        raise UserError(f"images is of type {type(images).__name__}; {EXPECTED}")
    if getattr(images, "ndim", 1) not in (1, 3, 4):
        raise UserError(f"images has shape {tuple(images.shape)}; {EXPECTED}")
    return images.to_list() if hasattr(images, "iloc") else images  # a Series goes by its index otherwise


def is_place(images: Any) -> bool:
    """Whether something is a single path."""
    return isinstance(images, (str, os.PathLike))


def holds_paths(items: Any) -> bool:
    """Whether items are paths, by the first of them."""
    return len(items) > 0 and is_place(items[0])


def _of_entries(folder: Path, entries: Sequence[Entry]) -> GivenImages:
    whole = [entry for entry in entries if not entry.problem]
    skipped = [(str(folder / entry.path), entry.problem) for entry in entries if entry.problem]
    return GivenImages([str(folder / entry.path) for entry in whole], [e.digest for e in whole], skipped=skipped)


# -------------------------------------------------------------------- in memory


def _in_memory(images: Any) -> GivenImages:
    def read(name: str) -> bytes:
        return _file_of(image_of(images[int(name)], name))

    names = [str(number) for number in range(len(images))]
    digests = [hashlib.sha256(read(name)).hexdigest() for name in bar(names, "read images")]
    return GivenImages(names, digests, read, of_files=False)


def image_of(item: Any, name: str) -> Image.Image:
    """An image in memory as Pillow's, RGB, upright.

    Args:
        item: Pillow's image, an array or tensor; or a tuple that begins with one.
        name: For errors.

    Raises:
        UserError: If it is none.
    """
    item = item[0] if isinstance(item, (tuple, list)) and len(item) else item
    if isinstance(item, Image.Image):
        return rgb(item)
    if isinstance(item, torch.Tensor):
        item = item.detach().cpu().numpy()
        item = np.moveaxis(item, 0, -1) if item.ndim == 3 else item
    if not isinstance(item, np.ndarray):
        raise UserError(f"image {name} is of type {type(item).__name__}; {EXPECTED}")
    pixels = item[..., 0] if item.ndim == 3 and item.shape[-1] == 1 else item
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] not in (3, 4)) or not pixels.size:
        raise UserError(f"image {name} has shape {item.shape}; {EXPECTED}")
    if np.issubdtype(pixels.dtype, np.floating) and pixels.min() >= 0 and pixels.max() <= 1:
        pixels = np.round(pixels * 255).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise UserError(f"image {name} has dtype {pixels.dtype}; expected uint8, or floats from 0 to 1")
    return rgb(Image.fromarray(np.ascontiguousarray(pixels)))


def _file_of(image: Image.Image) -> bytes:
    """An image as a file of its bare pixels (PPM): quick, and of the same bytes with every version of Pillow."""
    return b"P6 %d %d 255\n" % image.size + image.tobytes()
