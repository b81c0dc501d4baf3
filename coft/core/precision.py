"""Precision and attention kernel of the forward pass, chosen for the machine's speed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .settings import setting

AUTO = "auto"
PRECISIONS = {"fp32": None, "fp16": torch.float16, "amp": torch.float16, "bf16": torch.bfloat16}
SHORT = 128  # tokens
_NATIVE_BF16 = ("avx512_bf16", "amx_bf16")  # names of torch.cpu.get_capabilities


def precision_setting(default: str = "fp32", more: str = "") -> Any:
    """Declare the setting PREC of a method; `more` replaces the explanation of "auto" in its help."""
    ways = more or f"{AUTO}: what is faster"
    return setting(default, f"precision of the forward pass; {ways}", choices=(*PRECISIONS, AUTO))


def faster_precision(device: str) -> str:
    """Resolve "auto" to a precision, by the capabilities of the machine's arithmetic units.

    A choice by timing would vary from run to run, and with it the bits of the results. docs/performance.md has measured
    times.

    Args:
        device: "cpu" or "cuda".

    Returns:
        "bf16" if the device multiplies it natively; else "fp32" on a CPU, "amp" (fp16 with loss scaling) on a GPU.
    """
    if device == "cuda":
        return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "amp"
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # missing in older releases
    return "bf16" if any(capabilities.get(name) for name in _NATIVE_BF16) else "fp32"


def step_attention(visual: nn.Module, device: str, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """Context for training steps that selects torch's faster attention kernel for an image encoder.

    On a CPU, the backward pass of the fused kernel is slow in bf16 for few tokens.

    Args:
        visual: CLIP's image encoder.
        device: "cpu" or "cuda".
        dtype: Data type of the forward pass; None for fp32.
    """
    slow = device == "cpu" and dtype is torch.bfloat16
    if slow and any(map(_reads_few_tokens, getattr(visual, "members", [visual]))):
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def _reads_few_tokens(visual: Any) -> bool:
    timms = getattr(getattr(visual, "trunk", None), "pos_embed", None)
    positions = getattr(visual, "positional_embedding", timms)  # a ResNet has none
    return positions is not None and positions.shape[-2] <= SHORT
