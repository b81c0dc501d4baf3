"""Miscellaneous tools that plugins use."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from .files import check_isfile, listdir_nohidden, mkdir_if_missing, read_json, write_json
from .images import ImageReadError, read_image
from .registry import check_availability

__all__ = [
    "ImageReadError",
    "check_availability",
    "check_isfile",
    "collect_env_info",
    "listdir_nohidden",
    "mkdir_if_missing",
    "read_image",
    "read_json",
    "set_random_seed",
    "tolist_if_not",
    "write_json",
]


def set_random_seed(seed: int) -> None:
    """Seed the generators of Python, NumPy and PyTorch, on all GPUs. Zero is a valid seed."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (plugins draw from the global generator)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)


def collect_env_info() -> str:
    """Describe the machine and the versions of PyTorch and Pillow."""
    import PIL
    from torch.utils.collect_env import get_pretty_env_info

    return f"{get_pretty_env_info()}\n        Pillow ({PIL.__version__})"


def tolist_if_not(x: Any) -> list[Any]:
    """Return a list unchanged, and anything else as the only entry of a new list."""
    return x if isinstance(x, list) else [x]
