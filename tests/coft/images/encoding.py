"""Encoded images."""

from __future__ import annotations

import io

from PIL import Image


def encode(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    """Encode an image in one of Pillow's formats."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()
