"""Images passed by the user: a folder, files, or images in memory. Labels are never read."""

from __future__ import annotations

import hashlib
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
from coft.core.experiment import FILES, IN_MEMORY
from coft.core.files import check_exists, given_path
from coft.core.paths import expanded
from coft.core.progress import bar
from coft.core.schemas import PathText
from coft.core.settings import shown
from coft.core.tensors import FLOATS, WHOLE, defect
from coft.core.threads import map_threaded
from coft.images.index import Entry, index_folder, list_images, read_entry
from coft.images.reading import SUFFIXES, check_sides, check_size, read_bytes, rgb, unreadable

NON_SEQUENCE_TYPES = (dict, bytes, bytearray, Image.Image)
COLOURS = {3, 4}  # number of channels, without and with transparency
EXPECTED = (
    "expected a folder, paths of files, images of Pillow, an array of shape (N, H, W, 3) with dtype uint8, or a Dataset"
)


@dataclass(frozen=True)
class ImageSet:
    """The readable images among those that the user passed.

    Attributes:
        names: Absolute path of each file, or position of each image in memory as text.
        digests: SHA-256 of the content of each image, in hexadecimal.
        read: Function from a name to the bytes of an image file.
        origin: Folder that holds exactly these images, `FILES` or `IN_MEMORY`.
        skipped: Name and problem of each unreadable image.
    """

    names: list[str]
    digests: list[str]
    read: Callable[[str], bytes] = read_bytes
    origin: str = FILES
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def are_files(self) -> bool:
        """Whether the names are paths."""
        return self.origin != IN_MEMORY

    @property
    def first_of_content(self) -> dict[str, str]:
        """Name of the first image with each content, by digest."""
        return {digest: name for name, digest in reversed(list(zip(self.names, self.digests, strict=True)))}

    def distinct(self) -> list[str]:
        """Return the names of distinct images: the first one of each content."""
        first = set(self.first_of_content.values())
        return list(dict.fromkeys(name for name in self.names if name in first))  # a path may be listed twice


def collect_images(images: Any) -> ImageSet:
    """Collect images of any accepted form. Unreadable files are skipped.

    Args:
        images: A flat or nested folder, or anything that `sequence_of` accepts.

    Raises:
        UserError: If `images` has another form, or no image can be read.
    """
    if is_path(images) and (folder := given_path(images, "images").resolve()).is_dir():
        image_set = _from_entries(folder, index_folder(folder), str(folder))
    elif holds_paths(items := sequence_of(images)):
        entries = [Entry(os.fspath(path_of(items, number))) for number in range(count_of(items))]
        here = Path.cwd()  # later commands may be given in another folder
        image_set = _from_entries(here, list(map_threaded(partial(read_entry, here), entries, "read images")), FILES)
    else:
        image_set = _from_memory(items)
    if not image_set.names:
        where = "images" if image_set.origin in (FILES, IN_MEMORY) else f"images {image_set.origin}"
        hint = f"files named {', '.join(sorted(SUFFIXES))} are supported" if image_set.are_files else EXPECTED
        if image_set.skipped:
            hint = f"such as {image_set.skipped[0][0]}: {image_set.skipped[0][1]}; give others"
        raise UserError(f"{where}: no image that can be read ({len(image_set.skipped)} found); {hint}")
    return image_set


def sequence_of(images: Any) -> Any:
    """Return images as a sequence of paths or of images in memory.

    Args:
        images: A folder or file; paths; Pillow images or arrays of shape (H, W) or (H, W, 3) each; an array of shape
            (N, H, W) or (N, H, W, 3), uint8; a tensor of shape (N, 3, H, W), uint8 or floats from 0 to 1; or a
            map-style Dataset of any of these. If its items are tuples, the image is the first entry and the others are
            ignored. A Dataset must return the same image each time.

    Raises:
        UserError: If `images` has another form.
    """
    if is_path(images):
        path = given_path(images, "images")
        check_exists(path)
        if path.is_dir():
            return sorted(str(path.resolve() / entry.path) for entry in list_images(path.resolve()))
        return [str(path)]
    if not (hasattr(images, "__getitem__") and hasattr(images, "__len__")) or isinstance(images, NON_SEQUENCE_TYPES):
        raise UserError(f"images is of type {type(images).__name__}; {EXPECTED}")
    if isinstance(images, torch.Tensor):
        images = dense(images, "images")
    if getattr(images, "ndim", 1) not in (1, 3, 4):
        raise UserError(f"images has shape {tuple(images.shape)}; {EXPECTED}")
    shape = tuple(getattr(images, "shape", ()))
    if len(shape) == 3 and (shape[2] in COLOURS or (isinstance(images, torch.Tensor) and shape[0] in COLOURS)):
        raise UserError(
            f"images has shape {tuple(images.shape)}, which may be one image in colour; give a list of it: [image]"
        )
    return images.to_list() if hasattr(images, "iloc") else images  # items[i] of a pandas Series would look up a label


def is_path(images: Any) -> bool:
    """Return whether `images` is a single path."""
    return isinstance(images, (str, os.PathLike))


def holds_paths(items: Any) -> bool:
    """Return whether items are paths, judged by the first one."""
    return count_of(items) > 0 and is_path(_item(items, 0))


def _from_entries(folder: Path, entries: Sequence[Entry], origin: str) -> ImageSet:
    readable = [entry for entry in entries if not entry.problem]
    paths = [str(folder / entry.path) for entry in readable]
    skipped = [(str(folder / entry.path), entry.problem) for entry in entries if entry.problem]
    return ImageSet(paths, [entry.digest for entry in readable], origin=origin, skipped=skipped)


# -------------------------------------------------------------------- in memory


@dataclass(frozen=True)
class _FromMemory:
    """Function that returns an image of a sequence as the content of a file. Processes that are spawned can take it."""

    images: Any

    def __call__(self, name: str) -> bytes:
        return _to_ppm(item_of(self.images, int(name)))


def _from_memory(images: Any) -> ImageSet:
    read = _FromMemory(images)
    names = [str(number) for number in range(count_of(images))]
    digests = [hashlib.sha256(read(name)).hexdigest() for name in bar(names, "read images")]
    return ImageSet(names, digests, read, IN_MEMORY)


def count_of(images: Any) -> int:
    """Return the length of a sequence of images.

    Raises:
        UserError: If it has no length.
    """
    try:
        return len(images)
    except Exception as error:  # a user's Dataset may raise anything
        raise UserError(f"images has no length ({_describe_error(error)}); {EXPECTED}") from error


def item_of(images: Any, number: int) -> Image.Image:
    """Return an image of a sequence in memory.

    Raises:
        UserError: If the item cannot be retrieved, or is not an image.
    """
    return image_of(_item(images, number), str(number))


def path_of(images: Any, number: int) -> Any:
    """Return a path of a sequence of paths.

    Raises:
        UserError: If the item cannot be retrieved, or is not a valid path.
    """
    if not is_path(path := _item(images, number)):
        raise UserError(f"image {number} is of type {type(path).__name__}, and others are paths; {EXPECTED}")
    if not PathText().matches(text := os.fspath(path)):
        raise UserError(f"image {number} is {shown(text)}; expected {PathText()}")
    return expanded(path) if text.startswith("~") else path


def _item(images: Any, number: int) -> Any:
    try:
        return images[number]
    except UserError:
        raise
    except Exception as error:  # a user's Dataset may raise anything
        raise UserError(
            f"image {number} cannot be retrieved from {type(images).__name__} ({_describe_error(error)}); "
            f"check the data set"
        ) from error


def _describe_error(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]


def dense(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """Convert a tensor to a form that numpy can read: on the CPU, without gradients, floats in fp32.

    Raises:
        UserError: If the tensor is not dense, or has an unsupported dtype.
    """
    if reason := defect(tensor):
        raise UserError(f"{name} {reason}; give a dense tensor")
    if tensor.dtype not in (*FLOATS, *WHOLE, torch.bool):
        raise UserError(f"{name} has dtype {tensor.dtype}; expected uint8, or floats from 0 to 1")
    return (tensor.float() if tensor.is_floating_point() else tensor).detach().cpu().resolve_neg()


def image_of(item: Any, name: str) -> Image.Image:
    """Convert an image in memory to a Pillow image, RGB and upright.

    Args:
        item: A Pillow image, array or tensor, or a tuple or list with one as its first entry.
        name: Name of the image in error messages.

    Raises:
        UserError: If the item is not an image, or cannot be read.
    """
    item = item[0] if isinstance(item, (tuple, list)) and len(item) else item
    if isinstance(item, torch.Tensor):
        item = dense(item, f"image {name}").numpy()
        item = np.moveaxis(item, 0, -1) if item.ndim == 3 else item
    try:
        if isinstance(item, np.ndarray):
            item = _from_array(item, name)
        if not isinstance(item, Image.Image):
            raise UserError(f"image {name} is of type {type(item).__name__}; {EXPECTED}")
        check_sides(*item.size)
        check_size(*item.size)
        return rgb(item)
    except (MemoryError, UserError):
        raise
    except Exception as error:  # from closed images, images without content, or a decoder on damaged bytes
        raise unreadable(name, _describe_error(error)) from error


def _from_array(item: np.ndarray, name: str) -> Image.Image:
    pixels = item[..., 0] if item.ndim == 3 and item.shape[-1] == 1 else item
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] not in (3, 4)) or not pixels.size:
        raise UserError(f"image {name} has shape {item.shape}; {EXPECTED}")
    if np.issubdtype(pixels.dtype, np.floating) and pixels.min() >= 0 and pixels.max() <= 1:
        pixels = np.round(pixels * 255).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise UserError(f"image {name} has dtype {pixels.dtype}; expected uint8, or floats from 0 to 1")
    return Image.fromarray(np.ascontiguousarray(pixels))


def _to_ppm(image: Image.Image) -> bytes:
    """Encode an image as PPM, which is fast and whose bytes do not depend on the version of Pillow."""
    return b"P6 %d %d 255\n" % image.size + image.tobytes()
