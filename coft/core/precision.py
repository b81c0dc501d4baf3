"""Precision of the forward pass, and what the machine is faster with."""

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
    """The setting PREC of a method; `more` is what else to say of it."""
    ways = more or f"{AUTO}: what is faster"
    return setting(default, f"precision of the forward pass; {ways}", choices=(*PRECISIONS, AUTO))


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


def step_attention(visual: nn.Module, device: str, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """Context for training steps: which of torch's attention kernels an image encoder is faster with.

    On a CPU the fused kernel's backward pass in bf16 is slow for few tokens; docs/performance.md has the times.

    Args:
        visual: CLIP's image encoder.
        device: "cpu" or "cuda".
        dtype: Of the forward pass; None is fp32.
    """
    if (
        device == "cpu"
        and dtype is torch.bfloat16
        and any(map(_reads_few_tokens, getattr(visual, "members", [visual])))
    ):
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def _reads_few_tokens(visual: Any) -> bool:
    timms = getattr(getattr(visual, "trunk", None), "pos_embed", None)
    positions = getattr(visual, "positional_embedding", timms)  # a ResNet has none
    return positions is not None and positions.shape[-2] <= SHORT
