"""Vision transformers of three libraries in the same parts: what is before the blocks, the blocks, what is after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from coft.backbones.architecture import timm_vit
from coft.backbones.residual_block import open_clips


@dataclass(frozen=True)
class VitParts:
    """A vision transformer in parts.

    Attributes:
        embed: Images (n, 3, size, size) to tokens (n, length, width).
        prefix: How many of the tokens stand before the patches: a class token, registers.
        blocks: Residual blocks.
        read_out: Tokens (n, length, width) to features (n, embed_dim).
        wanted: How many tokens `read_out` looks at, from the first; all if None.
    """

    embed: Callable[[Tensor], Tensor]
    prefix: int
    blocks: Sequence[nn.Module]
    read_out: Callable[[Tensor], Tensor]
    wanted: int | None = None


def parts_of(visual: Any) -> VitParts:
    """Take a vision transformer apart: OpenAI's, open_clip's, or timm's in open_clip's adapter."""
    if trunk := timm_vit(visual):
        return VitParts(
            partial(_embed_timms, trunk), trunk.num_prefix_tokens, trunk.blocks, partial(_read_timms, visual)
        )
    if type(visual) is open_clips("VisionTransformer"):
        by_class = visual.attn_pool is None and visual.pool_type == "tok"
        wanted = 1 if by_class else None
        return VitParts(visual._embeds, 1, visual.transformer.resblocks, partial(_read_open_clips, visual), wanted)
    return VitParts(partial(_embed_clips, visual), 1, visual.transformer.resblocks, partial(_read_clips, visual), 1)


def _embed_clips(visual: Any, images: Tensor) -> Tensor:
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    cls = visual.class_embedding.expand(len(images), 1, -1)
    return visual.ln_pre(torch.cat([cls, patches], dim=1) + visual.positional_embedding)


def _read_clips(visual: Any, x: Tensor) -> Tensor:
    return visual.ln_post(x[:, 0]) @ visual.proj


def _read_open_clips(visual: Any, x: Tensor) -> Tensor:
    pooled, _ = visual._pool(x)
    return pooled if visual.proj is None else pooled @ visual.proj


def _embed_timms(trunk: Any, images: Tensor) -> Tensor:
    return trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(images))))


def _read_timms(visual: Any, x: Tensor) -> Tensor:
    return visual.head(visual.trunk.forward_head(visual.trunk.norm(x)))
