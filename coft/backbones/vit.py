"""Vision transformers of three libraries, split into the embedding, the blocks and the head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from coft.backbones.architecture import timm_vit
from coft.backbones.residual_block import open_clip_class


@dataclass(frozen=True)
class VitParts:
    """Parts of a vision transformer.

    Attributes:
        embed: Maps images (n, 3, size, size) to tokens (n, length, width).
        prefix: Number of tokens before the patches: class token and registers.
        blocks: Residual blocks.
        read_out: Maps tokens (n, length, width) to features (n, embed_dim).
        tokens_read: Number of leading tokens that `read_out` needs; None for all.
    """

    embed: Callable[[Tensor], Tensor]
    prefix: int
    blocks: Sequence[Callable[[Tensor], Tensor]]
    read_out: Callable[[Tensor], Tensor]
    tokens_read: int | None = None


def parts_of(visual: Any) -> VitParts:
    """Split a vision transformer of OpenAI, of open_clip, or of timm in open_clip's adapter."""
    if trunk := timm_vit(visual):
        embed: Any = EmbeddingWithRope(trunk) if hasattr(trunk, "rope") else partial(_embed_timms, trunk)
        blocks = embed.blocks if hasattr(trunk, "rope") else trunk.blocks
        return VitParts(embed, trunk.num_prefix_tokens, blocks, partial(_read_timms, visual))
    if type(visual) is open_clip_class("VisionTransformer"):
        by_class = visual.attn_pool is None and visual.pool_type == "tok"
        tokens_read = 1 if by_class else None
        return VitParts(visual._embeds, 1, visual.transformer.resblocks, partial(_read_open_clips, visual), tokens_read)
    return VitParts(partial(_embed_clips, visual), 1, visual.transformer.resblocks, partial(_read_clips, visual), 1)


def _embed_clips(visual: Any, images: Tensor) -> Tensor:
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    cls = visual.class_embedding.expand(images.shape[0], 1, -1)
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


class EmbeddingWithRope:
    """Embedding of timm's Eva. It also computes the rotary position embeddings of the patches for all blocks.

    Args:
        trunk: Eva model of timm.

    Attributes:
        blocks: Blocks as functions of the tokens alone. They use the rotary positions of the last embedded images, so
            call the embedding first.
    """

    def __init__(self, trunk: Any) -> None:
        self.trunk = trunk
        self.rope: Any = None
        self.blocks = [BlockWithRope(self, i) for i in range(len(trunk.blocks))]

    def __call__(self, images: Tensor) -> Tensor:
        """Embed images (n, 3, size, size) as tokens (n, length, width)."""
        x, self.rope = self.trunk._pos_embed(self.trunk.patch_embed(images))
        return self.trunk.norm_pre(x)


@dataclass(frozen=True)
class BlockWithRope:
    """Block of timm's Eva, called with the rotary positions that its embedding has computed."""

    embedding: EmbeddingWithRope
    index: int
    batch_first = True

    def __call__(self, x: Tensor) -> Tensor:
        """Run the block on tokens (n, length, width)."""
        trunk, rope = self.embedding.trunk, self.embedding.rope
        mixed = getattr(trunk, "rope_mixed", False) and rope is not None
        return trunk.blocks[self.index](x, rope=rope[self.index] if mixed else rope)


def add_prefix_tokens(visual: Any, num_tokens: int) -> None:
    """Register additional tokens before the patches of a vision transformer, so that rotary positions skip them.

    Args:
        visual: Vision transformer, changed in place.
        num_tokens: Number of additional tokens.
    """
    for module in visual.modules():
        if hasattr(module, "num_heads") and hasattr(module, "num_prefix_tokens"):
            module.num_prefix_tokens += num_tokens
