"""Miscellaneous tools that plugins use."""

from __future__ import annotations

import random
import urllib.request
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from .files import (
    StrPath,
    check_isfile,
    listdir_nohidden,
    mkdir_if_missing,
    read_json,
    replacing,
    write_json,
)
from .images import ImageReadError, read_image
from .registry import check_availability, get_most_similar_str_to_a_from_b

__all__ = [
    "ImageReadError",
    "check_availability",
    "check_isfile",
    "collect_env_info",
    "download_url",
    "get_most_similar_str_to_a_from_b",
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


def download_url(url: str, dst: StrPath) -> None:
    """Download a file with a progress bar. The file gets its name once it is complete.

    Args:
        url: Address with the scheme http or https.
        dst: Path of the file.

    Raises:
        ValueError: If the URL has another scheme.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"url is {url!r}; expected http:// or https://")
    print(f'* url="{url}"')
    print(f'* destination="{dst}"')
    with urllib.request.urlopen(url) as response, replacing(dst) as file:
        total = int(response.headers.get("Content-Length", 0)) or None
        with tqdm(total=total, unit="B", unit_scale=True, disable=None) as bar:
            while chunk := response.read(1 << 20):
                file.write(chunk)
                bar.update(len(chunk))
