"""Reading and decoding of image files, for training and test alike. Errors name the file."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from coft.core import untrusted
from coft.core.errors import UserError
from coft.core.files import IMAGE_SUFFIXES
from coft.core.sanitize import one_line

SUFFIXES = IMAGE_SUFFIXES
# Only these formats are decoded, whatever the file is named: Pillow would run Ghostscript on PostScript.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF")
MAX_ASPECT_RATIO = 100  # maximum aspect ratio; resizing the shorter side of a longer strip would take gigabytes
MAX_PIXELS = 1 << 26  # maximum pixels of a decoded image: 64 million, a quarter of a GB in Pillow's memory
MAX_BYTES = 1 << 29  # maximum size of a file, in bytes
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `check_size` names the file instead
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # about metadata, without a file name
WHITE = (255, 255, 255, 255)
OVERSHOOT = 1.1  # the highest value of a float image may be this multiple of white, after sharpening or rounding


class UnreadableImage(UserError):
    """Error of an image that cannot be read.

    Attributes:
        problem: The reason alone, on one line.
    """

    problem = ""


def unreadable(name: str | Path, problem: str) -> UnreadableImage:
    """Return the error of an image that cannot be read. Workers can re-raise it: it is made from its message alone."""
    error = UnreadableImage(f"image {name} cannot be read ({problem}); replace or remove it")
    error.problem = one_line(problem)
    return error


@dataclass(frozen=True)
class Decoding:
    """Size to which images are decoded.

    Attributes:
        enough: Minimum shorter side, in pixels, of a JPEG that is decoded at a half, quarter or eighth of its size,
            which is faster. 0 always decodes at full size.
        shorter: Maximum shorter side in pixels: larger images are shrunk to it. 0 never shrinks.
    """

    enough: int = 0
    shorter: int = 0

    def shrink(self, image: Image.Image) -> Image.Image:
        """Shrink a decoded image whose shorter side exceeds `shorter` pixels to that size."""
        share = self.shorter / min(image.size)
        if not 0 < share < 1:
            return image
        width, height = (max(self.shorter, round(side * share)) for side in image.size)
        return image.resize((width, height), Image.Resampling.BICUBIC)


FULL_SIZE = Decoding()


def decode_image(data: bytes, path: str | Path, decoding: Decoding = FULL_SIZE) -> Image.Image:
    """Decode an image to upright RGB. Grey and palette images are converted, transparency is blended with white.

    Args:
        data: Content of the file.
        path: Path of the file, for the error message.
        decoding: Size to which the image is decoded.

    Raises:
        UnreadableImage: If the bytes cannot be decoded as an image.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as file:
            check_sides(*file.size)
            if file.info.get("progressive"):  # decoders hold all coefficients of these JPEGs, whatever the draft's size
                check_size(*file.size)
            if decoding.enough:
                file.draft(None, (decoding.enough, decoding.enough))
            check_size(*file.size)
            return decoding.shrink(rgb(file))
    except MemoryError:
        raise
    except Exception as error:  # decoders raise exceptions of any type on damaged bytes
        unknown = isinstance(error, UnidentifiedImageError)  # its message contains the address of an object
        kind = "unknown image format" if data else "the file is empty"
        reason = kind if unknown else " ".join(str(error).split()) or type(error).__name__
        raise unreadable(path, reason) from error


def check_sides(width: int, height: int) -> None:
    """Check that the sides of an image differ by at most a factor of `MAX_ASPECT_RATIO`.

    Raises:
        ValueError: If they differ by more. The message contains both sides.
    """
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ValueError(f"{width} x {height} pixels: a side is more than {MAX_ASPECT_RATIO} times the other")


def check_size(width: int, height: int) -> None:
    """Check that an image has at least one pixel and at most `MAX_PIXELS`, which bounds the memory it takes.

    Raises:
        ValueError: If it has fewer or more. The message contains both sides.
    """
    if not width * height:
        raise ValueError(f"{width} x {height} pixels: it is empty")
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels: at most {MAX_PIXELS >> 20} million are read")


def rgb(image: Image.Image) -> Image.Image:
    """Convert an image to upright RGB. Grey and palette images are converted, transparency is blended with white."""
    image = _eight_bits(_upright(image))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, WHITE), rgba)
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # outside of the try: damaged pixels are an error
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the metadata may be damaged although the pixels are fine
        return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale grey images of floats or large integers to 8 bits. Pillow would clip them instead."""
    if image.mode != "F" and not image.mode.startswith("I"):  # I, I;16 and others
        return image
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=np.inf, neginf=-np.inf)
    highest = float(np.max(values, initial=0.0, where=np.isfinite(values)))
    whites = {"F": [1.0, 255.0, 65535.0, highest], "I": [255.0, 65535.0, highest]}.get(image.mode, [65535.0])
    white = next(white for white in whites if highest <= OVERSHOOT * white)
    return Image.fromarray((values * (255 / white)).clip(0, 255).round().astype(np.uint8))


def read_bytes(path: str | Path) -> bytes:
    """Read a file.

    Raises:
        UnreadableImage: If the file is missing, too large, not a plain file, or may not be read.
    """
    try:
        return untrusted.read_bytes(path, MAX_BYTES)
    except OSError as error:
        raise unreadable(path, str(error.strerror or error)) from error
