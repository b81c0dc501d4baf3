"""Disk cache for tensors that are expensive to compute."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from coft.core.files import replacing
from coft.core.finite import first_not_finite
from coft.core.tensors import Array, load_saved
from coft.core.untrusted import MISSING

log = logging.getLogger(__name__)
BYTES_PER_NUMBER = 4  # per fp32 number
MMAP_THRESHOLD = 256 << 20  # larger files, in bytes, are memory-mapped, so that the system can reclaim their pages


def cached(compute: Callable[[], Tensor], folder: Path | None, *key: str, shape: tuple[int, int]) -> Tensor:
    """Return a tensor from the cache, or compute and store it.

    Args:
        compute: Function that computes the tensor.
        folder: Folder of the cache; None disables caching.
        *key: Everything that the tensor depends on.
        shape: Shape of the tensor.

    Returns:
        The tensor, with the same bits whether read or computed. Tensors with NaN or infinite values are not stored.
    """
    if folder is None:
        return compute()
    path = folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.pt"
    if (stored := _read(path, shape)) is not None:
        log.info("Reading image features from %s", path)
        return stored
    result = compute()
    if first_not_finite({"features": result}):
        return result
    try:
        # If torch opened the file itself, it would hide the error of a full disk.
        with replacing(path) as draft, draft.open("wb") as file:
            torch.save(result, file)
    except (OSError, RuntimeError) as error:
        _warn_once(folder, error)
        return result
    large = result.numel() * result.itemsize > MMAP_THRESHOLD
    mapped = _read(path, shape) if large else None
    return result if mapped is None else mapped


def _read(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """Read a stored tensor; None if there is none, or if it is damaged or has another shape or dtype."""
    try:
        features: Tensor = load_saved(path, mapped=math.prod(shape) * BYTES_PER_NUMBER > MMAP_THRESHOLD)
        form_of(shape).check(features, "the tensor")
        if not first_not_finite({"features": features}):
            return features
        reason = "no finite numbers"
    except MISSING:
        return None
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error)[:100]
    log.warning("Image features in %s are damaged (%s) and will be computed again", path, reason)
    return None


def form_of(shape: tuple[int, int]) -> Array:
    """Return the schema of a stored tensor: fp32, or also fp16 for tensors of more than `MMAP_THRESHOLD` bytes."""
    halves = (torch.float16,) if math.prod(shape) * BYTES_PER_NUMBER > MMAP_THRESHOLD else ()
    return Array(tuple((side, side) for side in shape), (torch.float32, *halves))


_warned_folders: set[str] = set()


def _warn_once(folder: Path, error: Exception) -> None:
    """Warn that features are not stored, once per folder and process, since the disk stays the same."""
    if str(folder) not in _warned_folders:
        _warned_folders.add(str(folder))
        log.warning("Image features are not stored in %s (%s): they are recomputed in every run", folder, error)
