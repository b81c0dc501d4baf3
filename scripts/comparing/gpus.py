"""The choice of GPUs of this machine."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from coft.core.errors import UserError

log = logging.getLogger(__name__)


def devices(numbers: Sequence[int], every: bool = False) -> list[str]:
    """Return the names of GPUs for CUDA_VISIBLE_DEVICES.

    Args:
        numbers: Indices among the GPUs that this process sees. Without any GPU, this many runs share the CPU, with a
            warning.
        every: Whether an empty sequence stands for all GPUs that this process sees.

    Raises:
        UserError: If there is no such GPU, or one is named twice.
    """
    if twice := [number for number, count in Counter(numbers).items() if count > 1]:
        raise UserError(f"--gpus names {twice[0]} several times; a GPU has one run at a time")
    count = torch.cuda.device_count()
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    seen = names[:count] if names else [str(number) for number in range(count)]
    if not seen:
        if numbers:
            log.warning("--gpus: no GPU is seen here, so runs take the CPU")
        return [str(number) for number in numbers]
    if wrong := [number for number in numbers if number >= len(seen)]:
        raise UserError(f"--gpus {wrong[0]}: expected numbers from 0 to {len(seen) - 1}, the GPUs that are seen here")
    return [seen[number] for number in numbers] if numbers or not every else seen


def environment(device: str | None) -> Mapping[str, str]:
    """Return environment variables that select a run's GPU; GPUs are ordered as in nvidia-smi."""
    return {} if device is None else {"CUDA_VISIBLE_DEVICES": device, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
