"""The residual block of CLIP's transformers, run with fewer passes over memory."""

from __future__ import annotations

import sys
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


def open_clips(name: str) -> Any:
    """A class of open_clip's transformers; None where open_clip is not in use, which takes seconds to import."""
    return getattr(sys.modules.get("open_clip.transformer"), name, None)


def is_plain_block(block: Any) -> bool:
    """Whether a block is CLIP's or open_clip's own, without anything added: its weights may be used one by one."""
    if type(block) is ResidualAttentionBlock:
        activations: tuple[Any, ...] = (QuickGELU,)
    elif type(block) is open_clips("ResidualAttentionBlock") and not hasattr(block, "ln_1_kv"):
        activations = (open_clips("QuickGELU"), nn.GELU)
    else:
        return False
    layers = [type(child) for child in block.mlp]
    return type(block.attn) is nn.MultiheadAttention and any(layers == [nn.Linear, a, nn.Linear] for a in activations)


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Apply a layer norm in the precision of its input, which may be double. Shape as the input's."""
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def feed_forward(block: Any, x: Tensor) -> Tensor:
    """Add the second half of a block: norm, two linear layers, an activation between. Shape as the input's."""
    hidden = block.mlp[0](layer_norm(block.ln_2, x))
    hidden = block.mlp[1](hidden) if isinstance(block.mlp[1], nn.GELU) else quick_gelu(hidden)
    return x + _scaled(block, "ls_2", block.mlp[2](hidden))


def add_attention(block: Any, x: Tensor, y: Tensor) -> Tensor:
    """Add what attention found (heads side by side, before their projection) to tokens. Shape as of both."""
    return x + _scaled(block, "ls_1", block.attn.out_proj(y))


def _scaled(block: Any, name: str, x: Tensor) -> Tensor:
    """Scale what a half of a block adds, where the block has scales (open_clip's LayerScale)."""
    scale = getattr(block, name, None)
    return x if scale is None else scale(x)


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
        batch_first = getattr(block, "batch_first", _is_of(block, ("open_clip.", "timm.")))
        return block(x)[:, rows] if batch_first else block(x.transpose(0, 1)).transpose(0, 1)[:, rows]
    query, key, value = project(block, x)
    y = F.scaled_dot_product_attention(query[:, :, rows], key, value)
    return feed_forward(block, add_attention(block, x[:, rows], y.transpose(1, 2).flatten(2)))


def _is_of(block: Any, packages: tuple[str, ...]) -> bool:
    """Whether a block is of some packages, also where FSDP has put a class of its own in front of the block's."""
    return any(base.__module__.startswith(packages) for base in type(block).__mro__)


def run_causal_block(block: Any, x: Tensor) -> Tensor:
    """Run a plain block in which a token sees itself and those before it. Shape (n, length, width), as of `x`."""
    query, key, value = project(block, x)
    y = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    return feed_forward(block, add_attention(block, x, y.transpose(1, 2).flatten(2)))
