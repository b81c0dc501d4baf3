"""Tensors that are expensive to make, kept on disk between runs."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from coft.runtime import disk_tables

log = logging.getLogger(__name__)


def cached(compute: Callable[[], Tensor], folder: Path | None, *key: str) -> Tensor:
    """Compute a tensor once: what an earlier run left under the same key is read back.

    Args:
        compute: Makes the tensor.
        folder: Where results are kept; None computes every time.
        *key: Everything that the result depends on.

    Returns:
        The tensor, the same bits from either source.
    """
    if folder is None:
        return compute()
    path = folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.pt"
    if path.is_file():
        log.info("Reading image features from %s", path)
        return torch.load(path, weights_only=True, mmap=path.stat().st_size > disk_tables.IN_MEMORY)
    result = compute()
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(result, draft)
        draft.replace(path)
    except (OSError, RuntimeError) as error:  # torch raises a RuntimeError where a disk is full
        with suppress(OSError):
            draft.unlink()
        log.warning("Image features are not kept in %s: %s", folder, error)
    return result
