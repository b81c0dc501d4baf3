"""Reading images: one reader for training and test, which names the file that it cannot read."""

from __future__ import annotations

import errno
import io
import os
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from coft.core.errors import UserError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm"}  # of files that count as images
# Only what these suffixes promise is decoded, whatever a file is called: Pillow would run Ghostscript on PostScript.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF")
LONGEST = 100  # times the other side; to bring the shorter side to a size would blow up a strip to gigabytes
MOST_PIXELS = 1 << 26  # of a decoded image: 64 million, a quarter of a GB in Pillow's memory
MOST_BYTES = 1 << 29  # of a file
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `check_size` names the file instead
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # of words beside the pixels, without a file
WHITE = (255, 255, 255, 255)


@dataclass(frozen=True)
class Decoding:
    """How large images become when they are read.

    Attributes:
        enough: A JPEG is decoded at a half, quarter or eighth of its size (its decoder can, in less time) as long as
            the shorter side keeps at least so many pixels. 0: always in full.
        shorter: Pixels to which the shorter side is shrunk, if it is longer. 0: never.
    """

    enough: int = 0
    shorter: int = 0

    def shrink(self, image: Image.Image) -> Image.Image:
        """Shrink a decoded image as `shorter` says."""
        share = self.shorter / min(image.size)
        if not 0 < share < 1:
            return image
        width, height = (max(self.shorter, round(side * share)) for side in image.size)
        return image.resize((width, height), Image.Resampling.BICUBIC)


IN_FULL = Decoding()


def decode_image(data: bytes, path: str | Path, decoding: Decoding = IN_FULL) -> Image.Image:
    """Decode an image to RGB, upright. Grey and palette images are converted, transparency is laid on white.

    Args:
        data: The bytes of the file.
        path: Its path, for the error message.
        decoding: How large the image becomes.

    Raises:
        UserError: If the bytes are no image that can be decoded.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as file:
            check_sides(*file.size)
            if decoding.enough:
                file.draft(None, (decoding.enough, decoding.enough))
            check_size(*file.size)
            return decoding.shrink(rgb(file))
    except MemoryError:
        raise
    except Exception as error:  # decoders raise what they like on bytes that are damaged
        unknown = isinstance(error, UnidentifiedImageError)  # its message has an object's address in it
        reason = "no image of a known kind" if unknown else " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"image {path} cannot be read ({reason}); replace or remove it") from error


def check_sides(width: int, height: int) -> None:
    """Refuse strips.

    Raises:
        ValueError: Saying what is too long.
    """
    if max(width, height) > LONGEST * min(width, height):
        raise ValueError(f"{width} x {height} pixels: a side is more than {LONGEST} times the other")


def check_size(width: int, height: int) -> None:
    """Refuse what would take too much memory.

    Raises:
        ValueError: Saying what is too large.
    """
    if width * height > MOST_PIXELS:
        raise ValueError(f"{width} x {height} pixels: at most {MOST_PIXELS >> 20} million are read")


def rgb(image: Image.Image) -> Image.Image:
    """An image as RGB, upright. Grey and palette images are converted, transparency is laid on white."""
    image = _eight_bits(_upright(image))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, WHITE), rgba)
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # first: pixels that are damaged are to be known as such
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the words beside the pixels may be damaged, and the pixels be fine
        return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Bring grey images of floats, or of integers beyond a byte, to what a byte can hold: PIL would cut them off."""
    if image.mode != "F" and not image.mode.startswith("I"):  # I, I;16 and others
        return image
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    highest = float(np.max(values))
    tops = {"F": [1.0, 255.0, 65535.0, highest], "I": [255.0, 65535.0, highest]}.get(image.mode, [65535.0])  # white
    top = next(top for top in tops if highest <= top)
    return Image.fromarray((values * (255 / top)).clip(0, 255).round().astype(np.uint8))


def read_bytes(path: str | Path) -> bytes:
    """Read a file.

    Raises:
        UserError: If it is missing or may not be read.
    """
    try:
        # without waiting for whoever would write to a pipe
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):  # reading a pipe would never end
                raise OSError(errno.EINVAL, "no plain file")
            if status.st_size > MOST_BYTES:
                raise OSError(errno.EFBIG, f"{status.st_size >> 20} MiB: at most {MOST_BYTES >> 20} are read")
            return file.read()
    except (OSError, ValueError) as error:  # the latter: a path that cannot be one
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"image {path} cannot be read ({reason}); replace or remove it") from error
