"""Precision of the forward pass, and what the machine is faster with."""

from __future__ import annotations

from typing import Any

import torch

AUTO = "auto"
PRECISIONS = {"fp32": None, "fp16": torch.float16, "amp": torch.float16, "bf16": torch.bfloat16}
_NATIVE_BF16 = ("avx512_bf16", "amx_bf16")  # names of torch.cpu.get_capabilities


def faster_precision(device: str) -> str:
    """Choose what "auto" stands for, by what the machine's arithmetic units can do.

    A clock would choose differently from run to run, and with it the bits of the results; docs/performance.md has what
    a clock says.

    Args:
        device: "cpu" or "cuda".

    Returns:
        "bf16" where it is multiplied natively; else "fp32" on a CPU, "amp" (fp16 with scaled gradients) on a GPU.
    """
    if device == "cuda":
        return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "amp"
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older releases do not tell
    return "bf16" if any(capabilities.get(name) for name in _NATIVE_BF16) else "fp32"
