"""Common interface to the text encoders of all CLIP families: tokens, embeddings, blocks and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.backbones.joint import members_of
from coft.backbones.residual_block import feed_forward, is_plain_block, layer_norm, run_block
from coft.backbones.tokens import CLIP_TOKENIZER, Tokenizer

AT_END = ("argmax", "eos")  # open_clip's names for pooling at the end of text


@dataclass(frozen=True)
class TextTower:
    """Text encoder with its tokenizer.

    It runs in one of two ways. If attention is causal and features are read at the end of text (`reads_at_end`), later
    tokens have no effect, so prompts are cut there. Otherwise prompts are padded to `context_length` tokens.

    Args:
        module: A `clip.model.CLIP`, or open_clip's `CLIP` or `TextTransformer`. Their children have the same names.
        tokenizer: The tokenizer that the encoder was trained with.
    """

    module: Any
    tokenizer: Tokenizer

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of a text, start and end included."""
        return self.module.positional_embedding.shape[0] - (self.class_embedding is not None)

    @property
    def width(self) -> int:
        """Dimension of the token embeddings."""
        return self.module.token_embedding.weight.shape[1]

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.module.positional_embedding.device

    @property
    def positions(self) -> Tensor:
        """Position embeddings. Shape (context_length, width), plus one row if there is a class embedding."""
        return self.module.positional_embedding

    @property
    def blocks(self) -> Sequence[Any]:
        """Residual blocks."""
        return self.module.transformer.resblocks

    @property
    def batch_first(self) -> bool:
        """Whether blocks take tokens of shape (n, length, width), as in open_clip; otherwise (length, n, width)."""
        return getattr(self.module.transformer, "batch_first", False)

    @property
    def class_embedding(self) -> Tensor | None:
        """Token after the text at which CoCa reads its features, shape (width,); None for other models."""
        return getattr(self.module, "cls_emb", None)

    @property
    def pool(self) -> str:
        """Pooling mode, by open_clip's names. OpenAI's CLIPs pool at the end of text."""
        default: str = getattr(self.module, "text_pool_type", "argmax")
        return getattr(self.module, "pool_type", default)

    @property
    def reads_at_end(self) -> bool:
        """Whether attention is causal and features are read at the end of text."""
        if not self.batch_first:
            return True
        causal = self.module.attn_mask is not None
        return causal and self.class_embedding is None and self.pool in AT_END

    @property
    def shares_prefix(self) -> bool:
        """Whether `text_tower.encode_classes` can encode the shared prefix of prompts once for all classes."""
        masked = self.batch_first or all(getattr(block, "attn_mask", None) is not None for block in self.blocks)
        return masked and self.reads_at_end and all(is_plain_block(block) for block in self.blocks)

    def embed(self, tokens: Tensor) -> Tensor:
        """Embed token ids of any shape. Shape (..., width)."""
        return self.module.token_embedding(tokens)

    def embeddings(self, tokens: Tensor) -> Tensor:
        """Embed token ids of any shape, as a copy without gradients. Shape (..., width)."""
        weight = self.module.token_embedding.weight.detach()
        return weight[tokens.to(weight.device)].clone()

    def run_causal(self, block: Any, x: Tensor, mask: Tensor) -> Tensor:
        """Run a block with causal attention.

        Args:
            block: One of `blocks`.
            x: Tokens. Shape (n, length, width) if `batch_first`, otherwise (length, n, width).
            mask: Additive causal mask. Shape (length, length).

        Returns:
            Tokens, in the shape of `x`.
        """
        if self.batch_first:
            return run_block(block, x, causal=True) if is_plain_block(block) else block(x, attn_mask=mask)
        h = block.ln_1(x)
        x = x + block.attn(h, h, h, need_weights=False, attn_mask=mask)[0]
        return feed_forward(block, x) if is_plain_block(block) else x + block.mlp(block.ln_2(x))

    def run_padded(self, embeddings: Tensor, ends: Tensor) -> Tensor:
        """Run all blocks over `context_length` tokens, with the padding, mask and pooling of open_clip.

        Args:
            embeddings: Token embeddings, without positions. Shape (n, length, width).
            ends: Index of each text's last token. Later tokens are replaced by padding. Shape (n,).

        Returns:
            Pooled token of each text. Shape (n, width).
        """
        missing = self.context_length - embeddings.shape[1]
        x = F.pad(embeddings, (0, 0, 0, missing))
        is_text = torch.arange(x.shape[1], device=x.device) <= ends.unsqueeze(1)
        x = torch.where(is_text.unsqueeze(2), x, self.embed(ends.new_tensor(self.tokenizer.pad)).to(x.dtype))
        mask = self.module.attn_mask
        if self.class_embedding is not None:
            x = torch.cat([x, self.class_embedding.to(x.dtype).expand(len(x), 1, -1)], dim=1)
            pad_id = self.module.pad_id
            token_ids = torch.where(is_text, pad_id + 1, self.tokenizer.pad)  # the mask only needs to know padding
            padding = self.module._build_additive_mask(token_ids, x.shape[1], x.dtype)
            mask = padding if mask is None else mask + padding
        x = self.module.transformer(x + self.positions, attn_mask=mask)
        if self.class_embedding is None and self.pool in AT_END:
            return x[torch.arange(len(x), device=x.device), ends]
        return x[:, 0] if self.class_embedding is None and self.pool == "first" else x[:, -1]

    def read_out(self, ends: Tensor) -> Tensor:
        """Project pooled tokens to text features.

        Args:
            ends: Pooled tokens. Shape (..., width).

        Returns:
            Unnormalized features. Shape (..., embed_dim).
        """
        ends, projection = layer_norm(self.module.ln_final, ends), self.module.text_projection
        with torch.autocast(ends.device.type, enabled=False):  # logits multiply errors of these features by about 100
            if isinstance(projection, nn.Linear):
                return projection(ends.to(projection.weight.dtype))
            return ends if projection is None else ends.to(projection.dtype) @ projection


def tower_of(clip_model: Any) -> TextTower:
    """Return the text encoder of a CLIP of any family. CLIP's tokenizer is the default."""
    module = getattr(clip_model, "text", clip_model)
    return TextTower(module, getattr(clip_model, "tokenizer", CLIP_TOKENIZER))


def width_of(clip_model: Any) -> int:
    """Return the feature dimension of a CLIP of any family. For joint CLIPs it is the sum over their members."""
    modules = [tower_of(member).module for member in members_of(clip_model)]
    projections = [module.text_projection for module in modules]
    return sum(
        module.ln_final.weight.shape[0]
        if projection is None
        else projection.out_features
        if isinstance(projection, nn.Linear)
        else projection.shape[-1]
        for module, projection in zip(modules, projections, strict=True)
    )
