"""Reading images."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageReadError", "read_image"]


class ImageReadError(OSError):
    """An image file that is missing or cannot be decoded; the message names it."""


def read_image(path: str | os.PathLike[str]) -> Image:
    """Read an image as RGB. Transparency is dropped, grey and palette images are converted.

    Raises:
        ImageReadError: If the file is missing, or cannot be decoded as an image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            # Palettes with transparent entries are expanded to RGBA first, else Pillow warns.
            with_alpha = image.mode == "P" and "transparency" in image.info
            return (image.convert("RGBA") if with_alpha else image).convert("RGB")
    except UnidentifiedImageError as error:
        raise ImageReadError(_message(path, "its format is not known")) from error
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ImageReadError(_message(path, getattr(error, "strerror", None) or error)) from error


def _message(path: str | os.PathLike[str], reason: object) -> str:
    return f"image {os.fspath(path)} cannot be read ({' '.join(str(reason).split())}); replace or remove it"
