"""Residual block of CLIP's transformers, computed with fewer passes over memory."""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.nn.functional as F
from clip.model import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn

SLOPE = 1.702  # slope of QuickGELU: x sigmoid(1.702 x)


class _QuickGelu(torch.autograd.Function):
    """QuickGELU computed from SiLU: silu(a x) / a. Its derivative is the derivative of SiLU at a x.

    The backward pass reads memory twice instead of five times, and one tensor is kept instead of two.
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
    """Apply CLIP's activation, x sigmoid(1.702 x), elementwise."""
    return _QuickGelu.apply(x)


def open_clip_class(name: str) -> Any:
    """Return a class of open_clip.transformer; None if open_clip is not imported yet, since importing takes seconds."""
    return getattr(sys.modules.get("open_clip.transformer"), name, None)


def is_plain_block(block: Any) -> bool:
    """Return whether a block is an unmodified block of CLIP or open_clip, so that its weights can be used directly."""
    if type(block) is ResidualAttentionBlock:
        activations: tuple[Any, ...] = (QuickGELU,)
    elif type(block) is open_clip_class("ResidualAttentionBlock") and not hasattr(block, "ln_1_kv"):
        activations = (open_clip_class("QuickGELU"), nn.GELU)
    else:
        return False
    layers = [type(child) for child in block.mlp]
    return type(block.attn) is nn.MultiheadAttention and any(layers == [nn.Linear, a, nn.Linear] for a in activations)


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Apply a layer norm in the precision of its input, which may be float64."""
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def feed_forward(block: Any, x: Tensor) -> Tensor:
    """Apply the second half of a block, with its residual connection: norm, linear layer, activation, linear layer."""
    hidden = block.mlp[0](layer_norm(block.ln_2, x))
    hidden = block.mlp[1](hidden) if isinstance(block.mlp[1], nn.GELU) else quick_gelu(hidden)
    return x + _scaled(block, "ls_2", block.mlp[2](hidden))


def add_attention(block: Any, x: Tensor, y: Tensor) -> Tensor:
    """Project the output of attention, and add it to the tokens.

    Args:
        block: The residual block.
        x: Tokens. Shape (..., width).
        y: Output of attention before the output projection, heads concatenated. Shape (..., width).

    Returns:
        Tokens. Shape (..., width).
    """
    return x + _scaled(block, "ls_1", block.attn.out_proj(y))


def _scaled(block: Any, name: str, x: Tensor) -> Tensor:
    """Apply open_clip's LayerScale to the output of half a block, if the block has one."""
    scale = getattr(block, name, None)
    return x if scale is None else scale(x)


def project(block: Any, x: Tensor) -> tuple[Tensor, ...]:
    """Compute queries, keys and values of tokens.

    Args:
        block: The residual block.
        x: Tokens. Shape (n, ..., length, width).

    Returns:
        Queries, keys and values. Shape (n, heads, ..., length, width / heads) each.
    """
    packed = F.linear(layer_norm(block.ln_1, x), block.attn.in_proj_weight, block.attn.in_proj_bias)
    return packed.unflatten(-1, (3, block.attn.num_heads, -1)).movedim((-3, -2), (0, 2)).unbind(0)


def run_block(block: Any, x: Tensor, rows: slice = slice(None), causal: bool = False) -> Tensor:
    """Run a block in which all tokens attend to each other, or each to those before it.

    Args:
        block: A residual block without a mask. With causal attention `is_plain_block` must be true.
        x: Tokens. Shape (n, length, width).
        rows: Tokens to return. Others are attended to, but the layers after attention are not computed for them.
        causal: Whether attention is causal; then all tokens are returned.

    Returns:
        The tokens of `rows`. Shape (n, number of rows, width).
    """
    if not is_plain_block(block):
        # All bases of the block's class count, since FSDP prepends one.
        is_other = any(base.__module__.startswith(("open_clip.", "timm.")) for base in type(block).__mro__)
        batch_first = getattr(block, "batch_first", is_other)
        return block(x)[:, rows] if batch_first else block(x.transpose(0, 1)).transpose(0, 1)[:, rows]
    query, key, value = project(block, x)
    y = F.scaled_dot_product_attention(query[:, :, rows], key, value, is_causal=causal)
    return feed_forward(block, add_attention(block, x[:, rows], y.transpose(1, 2).flatten(2)))
