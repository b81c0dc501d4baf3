"""Tensors that are expensive to make, kept on disk between runs."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from coft.core import disk_tables
from coft.core.files import broken_member, replacing
from coft.core.finite import first_not_finite

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
    if (kept := _kept(path)) is not None:
        log.info("Reading image features from %s", path)
        return kept
    result = compute()
    if first_not_finite({"features": result}):
        return result
    try:
        with replacing(path) as draft, draft.open("wb") as file:  # torch's own writer hides what a disk says
            torch.save(result, file)
    except (OSError, RuntimeError) as error:
        _say_once(folder, error)
    return result


def _kept(path: Path) -> Tensor | None:
    """What an earlier run left; None if there is nothing, or nothing whole."""
    try:
        if not path.is_file():
            return None
        if not (broken := broken_member(path)):
            found = torch.load(path, weights_only=True, mmap=path.stat().st_size > disk_tables.IN_MEMORY)
            if isinstance(found, Tensor) and not first_not_finite({"features": found}):
                return found
        reason = broken or "no finite numbers"
    except Exception as error:  # torch raises what the bytes lead it to
        reason = " ".join(str(error).split())[:100] or type(error).__name__
    log.warning("Image features in %s are damaged (%s) and are computed anew", path, reason)
    return None


_said: set[str] = set()


def _say_once(folder: Path, error: Exception) -> None:
    """Say that features are not kept: every run of a process finds the same disk."""
    if str(folder) not in _said:
        _said.add(str(folder))
        log.warning("Image features are not kept in %s (%s): runs compute them anew", folder, error)
