"""Images as the bytes of a file."""

from __future__ import annotations

import io

from PIL import Image


def encode(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    """Encode an image in a format of Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()
