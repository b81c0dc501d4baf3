"""The residual block of CLIP's transformers, run with fewer passes over memory."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from clip.model import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn

SLOPE = 1.702  # of QuickGELU: x sigmoid(1.702 x)


class _QuickGelu(torch.autograd.Function):
    """QuickGELU by way of SiLU: it is silu(a x) / a, and its derivative is SiLU's at a x.

    Two passes back instead of five, and one tensor kept instead of two.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        scaled = x * SLOPE
        ctx.save_for_backward(scaled)
        return F.silu(scaled).div_(SLOPE)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return torch.ops.aten.silu_backward(grad, *ctx.saved_tensors)


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's activation, x sigmoid(1.702 x). Shape as the input's."""
    return _QuickGelu.apply(x)


def is_plain_block(block: Any) -> bool:
    """Whether a block is CLIP's own, without anything added, so that its weights may be used one by one."""
    return (
        type(block) is ResidualAttentionBlock
        and type(block.attn) is nn.MultiheadAttention
        and [type(child) for child in block.mlp] == [nn.Linear, QuickGELU, nn.Linear]
    )


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Apply a layer norm in the precision of its input, which may be double. Shape as the input's."""
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def feed_forward(block: Any, x: Tensor) -> Tensor:
    """Add the second half of a block: norm, two linear layers, QuickGELU between. Shape as the input's."""
    return x + block.mlp[2](quick_gelu(block.mlp[0](layer_norm(block.ln_2, x))))
