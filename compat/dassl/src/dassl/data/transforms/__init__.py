"""Image transforms."""

from typing import Any

from . import transforms
from .transforms import build_transform

__all__ = ["INTERPOLATION_MODES", "build_transform"]  # noqa: F822 (the first is found by __getattr__)


def __getattr__(name: str) -> Any:
    return getattr(transforms, name)
