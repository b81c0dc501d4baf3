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


def project(block: Any, x: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values of tokens (n, ..., length, width), each (n, heads, ..., length, width / heads)."""
    packed = F.linear(layer_norm(block.ln_1, x), block.attn.in_proj_weight, block.attn.in_proj_bias)
    return packed.unflatten(-1, (3, block.attn.num_heads, -1)).movedim((-3, -2), (0, 2)).unbind(0)


def run_block(block: Any, x: Tensor, rows: slice = slice(None)) -> Tensor:
    """Run a block whose tokens all see each other.

    Args:
        block: A residual block without a mask.
        x: Tokens. Shape (n, length, width).
        rows: Tokens that are wanted of it. The others are seen, and what follows attention is saved for them.

    Returns:
        The wanted tokens. Shape (n, wanted, width).
    """
    if not is_plain_block(block):
        return block(x.transpose(0, 1)).transpose(0, 1)[:, rows]
    query, key, value = project(block, x)
    y = F.scaled_dot_product_attention(query[:, :, rows], key, value)
    return feed_forward(block, x[:, rows] + block.attn.out_proj(y.transpose(1, 2).flatten(2)))
