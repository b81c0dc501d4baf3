"""GPUs of this machine: the choice of devices, and the check that they are free."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from coft.core.errors import UserError

LEAST = 0.9  # share of a GPU's memory that is free if no other process uses it
QUERY = ("nvidia-smi", "--query-gpu=index,uuid,memory.free,memory.total", "--format=csv,noheader,nounits")


def devices(numbers: Sequence[int], every: bool = False) -> list[str]:
    """Return the names of GPUs for CUDA_VISIBLE_DEVICES.

    Args:
        numbers: Indices among the GPUs that this process sees. Without any GPU, this many runs share the CPU.
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
        return [str(number) for number in numbers]
    if wrong := [number for number in numbers if number >= len(seen)]:
        raise UserError(f"--gpus {wrong[0]}: expected numbers from 0 to {len(seen) - 1}, the GPUs that are seen here")
    return [seen[number] for number in numbers] if numbers or not every else seen


def environment(device: str | None) -> Mapping[str, str]:
    """Return environment variables that select a run's GPU; GPUs are ordered as in nvidia-smi."""
    return {} if device is None else {"CUDA_VISIBLE_DEVICES": device, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def memory() -> dict[str, tuple[float, float]]:
    """Return free and total memory of each GPU in GB, by index and by UUID; empty if nvidia-smi fails."""
    try:
        text = subprocess.run(QUERY, capture_output=True, text=True, timeout=60, check=True).stdout
        rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
        return {key: (float(free) / 1024, float(whole) / 1024) for *keys, free, whole in rows for key in keys}
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}


def check_free(names: Sequence[str], needed: float) -> None:
    """Check that GPUs have enough free memory: `needed`, or `LEAST` of the whole if that is less.

    Args:
        names: Names as `devices` returns them.
        needed: GB of the largest run.

    Raises:
        UserError: If a GPU has less; the message has its name and free memory.
    """
    if not torch.cuda.device_count():
        return
    for name, (free, whole) in memory().items():
        if name in names and free < min(needed, LEAST * whole):
            raise UserError(
                f"GPU {name} has {free:.0f} of {whole:.0f} GB free, and a run takes about {needed:.0f}: something else "
                "is at it; end that, or name other GPUs by --gpus"
            )
