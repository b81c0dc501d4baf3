"""The GPUs of this machine: which ones work, and which are taken."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from coft.core.errors import UserError

LEAST = 0.9  # share of a GPU's memory that is free where nobody else is at it
QUERY = ("nvidia-smi", "--query-gpu=index,uuid,memory.free,memory.total", "--format=csv,noheader,nounits")


def devices(numbers: Sequence[int], every: bool = False) -> list[str]:
    """Names of GPUs for CUDA_VISIBLE_DEVICES.

    Args:
        numbers: Of GPUs among those that this process sees. Without any GPU, so many runs share the CPU.
        every: Whether no number means all that this process sees.

    Raises:
        UserError: If there is no such GPU, or one is named twice.
    """
    if twice := [number for number, count in Counter(numbers).items() if count > 1]:
        raise UserError(f"--gpus names {twice[0]} several times; a GPU has one run at a time")
    count = torch.cuda.device_count()
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    seen = names[:count] if names else [str(number) for number in range(count)]
    if not seen:
        return [str(number) for number in numbers]
    if wrong := [number for number in numbers if number >= len(seen)]:
        raise UserError(f"--gpus {wrong[0]}: expected numbers from 0 to {len(seen) - 1}, the GPUs that are seen here")
    return [seen[number] for number in numbers] if numbers or not every else seen


def environment(device: str | None) -> Mapping[str, str]:
    """Variables of a run's process; the order of GPUs is that of nvidia-smi."""
    return {} if device is None else {"CUDA_VISIBLE_DEVICES": device, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def memory() -> dict[str, tuple[float, float]]:
    """Free and whole memory of each GPU in GB, by number and by name; empty where nobody can tell."""
    try:
        text = subprocess.run(QUERY, capture_output=True, text=True, timeout=60, check=True).stdout
        rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
        return {key: (float(free) / 1024, float(whole) / 1024) for *keys, free, whole in rows for key in keys}
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}


def check_free(names: Sequence[str], needed: float) -> None:
    """Refuse GPUs that others are at.

    Args:
        names: As `devices` gives them.
        needed: GB of the largest run; less than that may be taken of a larger GPU.

    Raises:
        UserError: Naming the GPU, and how much of it is free.
    """
    if not torch.cuda.device_count():
        return
    for name, (free, whole) in memory().items():
        if name in names and free < min(needed, LEAST * whole):
            raise UserError(
                f"GPU {name} has {free:.0f} of {whole:.0f} GB free, and a run takes about {needed:.0f}: something else "
                "is at it; end that, or name other GPUs by --gpus"
            )
