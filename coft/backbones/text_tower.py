"""The text tower over prompts that share their beginning: the beginning once, of each class its own tokens alone.

Prompts are [start, context, class name, tail, end of text], the context the same for all classes. Attention is causal,
so keys and values of [start, context] are the same for all classes too, and nothing after the end of text can be seen
where the features are read. So the tower reads the beginning once for each context, and then every class's own tokens,
which attend to the beginning and to themselves. The result is that of 77 tokens for every class.

Classes are packed into blocks of about 32 tokens: a token's attention goes to the beginning, whose keys exist once,
and to its block, where a mask keeps classes apart. So no class is padded to the length of the longest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from coft.backbones.residual_block import feed_forward, is_plain_block, layer_norm, project

BLOCK = 32  # tokens that see each other in one product; of 16, 32 and 64 the fastest
MEMORY_BUDGET = 2 << 30  # bytes of what the backward pass needs; beyond, classes are encoded twice
KEPT_CHUNKS, CHUNKS = 3, 4  # of a budget's four chunks, three are kept and one is for those that are encoded again
TENSORS_KEPT = 17  # of a token's width, in each layer
KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class PackedClasses:
    """Tokens of classes, packed into blocks.

    Attributes:
        tokens: Index of the class and of the token in it, of every place. Shape (2, blocks, length).
        mask: Where a token (second dimension) sees another (third). Shape (blocks, length, length), bool.
        ends: Block and place of each class's last token. Shape (2, C).
    """

    tokens: Tensor
    mask: Tensor
    ends: Tensor

    def to(self, device: torch.device) -> PackedClasses:
        """Move to a device."""
        return PackedClasses(self.tokens.to(device), self.mask.to(device), self.ends.to(device))


def pack(lengths: Sequence[int], block: int = BLOCK) -> PackedClasses:
    """Pack classes into blocks, the longest first, each into the first block that has room.

    Args:
        lengths: Number of tokens of each class.
        block: Tokens of a block; more where a class is longer than that, fewer where all make less.

    Returns:
        The places of all tokens. Places that stay free repeat the first token, which nobody looks at.
    """
    size = min(max(block, *lengths), sum(lengths))
    blocks: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fits = next((b for b, free in enumerate(room) if free >= lengths[index]), len(blocks))
        if fits == len(blocks):
            blocks.append([])
            room.append(size)
        blocks[fits].append(index)
        room[fits] -= lengths[index]
    tokens = torch.zeros(2, len(blocks), size, dtype=torch.long)
    owner = torch.full((len(blocks), size), -1)
    ends = torch.empty(2, len(lengths), dtype=torch.long)
    for row, members in enumerate(blocks):
        place = 0
        for index in members:
            after = place + lengths[index]
            owner[row, place:after] = index
            tokens[0, row, place:after] = index
            tokens[1, row, place:after] = torch.arange(lengths[index])
            ends[:, index] = torch.tensor([row, after - 1])
            place = after
    mask = (owner.unsqueeze(2) == owner.unsqueeze(1)).tril_()
    return PackedClasses(tokens, mask, ends)


@lru_cache(maxsize=64)
def _packed(lengths: tuple[int, ...], device: torch.device) -> PackedClasses:
    return pack(lengths).to(device)


def causal_mask(length: int, like: Tensor) -> Tensor:
    """Additive attention mask, shape (length, length): position i sees positions up to i."""
    return torch.full((length, length), float("-inf"), dtype=like.dtype, device=like.device).triu_(1)


def encode_text(clip_model: Any, embeddings: Tensor, eot: Tensor, budget: int = MEMORY_BUDGET) -> Tensor:
    """Run CLIP's text tower over token embeddings that end at the longest prompt's end-of-text token.

    Attention is causal, so what would follow the end of text cannot change the features that are read there:
    prompts need no padding to 77 tokens.

    Args:
        clip_model: A `clip.model.CLIP`, or one whose blocks have children of the same names.
        embeddings: Token embeddings, without positions. Shape (n, length, width).
        eot: Index of each prompt's end-of-text token. Shape (n,).
        budget: Bytes that may be kept for the backward pass. Beyond, chunks of prompts are encoded once more there.

    Returns:
        Features, not normalised. Shape (n, embed_dim).
    """
    lengths = [embeddings.shape[1]] * len(embeddings)
    pieces = [(clip_model, embeddings[part], eot[part]) for part in _chunks(clip_model, lengths, 1, budget)]
    return torch.cat(_in_turn(_encode_cut, pieces))


def _encode_cut(clip_model: Any, embeddings: Tensor, eot: Tensor) -> Tensor:
    length = embeddings.shape[1]
    x = (embeddings + clip_model.positional_embedding[:length]).transpose(0, 1)
    mask = causal_mask(length, x)
    for block in clip_model.transformer.resblocks:
        h = block.ln_1(x)
        x = x + block.attn(h, h, h, need_weights=False, attn_mask=mask)[0]
        x = feed_forward(block, x) if is_plain_block(block) else x + block.mlp(block.ln_2(x))
    return _read_out(clip_model, x[eot, torch.arange(x.shape[1], device=x.device)])


def _read_out(clip_model: Any, ends: Tensor) -> Tensor:
    """Text features of what the tower has at the ends of text."""
    ends = layer_norm(clip_model.ln_final, ends)
    with torch.autocast(ends.device.type, enabled=False):  # logits are a hundred times a product of these
        return ends.to(clip_model.text_projection.dtype) @ clip_model.text_projection


def _in_turn(function: Callable[..., Tensor], pieces: Sequence[tuple[Any, ...]]) -> list[Tensor]:
    """Call a function with each piece. Of all but the first few, the backward pass computes again what it needs."""
    again = KEPT_CHUNKS if torch.is_grad_enabled() else len(pieces)
    kept = [function(*piece) for piece in pieces[:again]]
    rest = [checkpoint(function, *piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces[again:]]
    return kept + rest


def shares_prefix(clip_model: Any) -> bool:
    """Whether a text tower is made of CLIP's own blocks with its causal mask."""
    return all(is_plain_block(block) and block.attn_mask is not None for block in clip_model.transformer.resblocks)


def encode_classes(
    clip_model: Any,
    prefix: Tensor,
    suffix: Tensor,
    lengths: Sequence[int],
    budget: int = MEMORY_BUDGET,
) -> Tensor:
    """Encode prompts that share their beginning.

    Args:
        clip_model: A `clip.model.CLIP` that `shares_prefix`.
        prefix: Token embeddings of [start, context], without positions, of P prompts. Shape (P, length, width).
        suffix: Token embeddings of [name, tail, end of text] of C classes, padded. Shape (C, longest, width).
        lengths: Number of tokens of each class in `suffix`, C of them.
        budget: Bytes that may be kept for the backward pass. Beyond, chunks of classes are encoded once more there.

    Returns:
        Features, not normalised. Shape (P, C, embed_dim).
    """
    shared = _prefix_keys_values(clip_model, prefix)
    pieces = [
        (clip_model, shared, suffix[part], tuple(lengths[part]), prefix.shape[1])
        for part in _chunks(clip_model, lengths, len(prefix), budget)
    ]
    return torch.cat(_in_turn(_class_features, pieces), dim=1)


def _chunks(clip_model: Any, lengths: Sequence[int], prompts: int, budget: int) -> list[slice]:
    """Cut the classes into chunks of a quarter of the budget each; one chunk where the budget is enough."""
    width, layers = clip_model.ln_final.weight.shape[0], len(clip_model.transformer.resblocks)
    each = prompts * layers * width * TENSORS_KEPT * clip_model.ln_final.weight.element_size()
    if sum(lengths) * each <= budget:
        return [slice(0, len(lengths))]
    room = max(1, budget // CHUNKS // each)
    starts, used = [0], 0
    for i, length in enumerate(lengths):
        if used and used + length > room:
            starts.append(i)
            used = 0
        used += length
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(lengths)], strict=True)]


def _prefix_keys_values(clip_model: Any, prefix: Tensor) -> list[KeysValues]:
    """Keys and values of the beginning in every layer, each of shape (P, heads, length, width / heads)."""
    x = prefix + clip_model.positional_embedding[: prefix.shape[1]]
    blocks = clip_model.transformer.resblocks
    result = []
    for i, block in enumerate(blocks):
        query, key, value = project(block, x)
        result.append((key, value))
        if i + 1 < len(blocks):
            y = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = feed_forward(block, x + block.attn.out_proj(y.transpose(1, 2).flatten(2)))
    return result


def _class_features(
    clip_model: Any,
    shared: Sequence[KeysValues],
    suffix: Tensor,
    lengths: tuple[int, ...],
    start: int,
) -> Tensor:
    """Features of classes whose tokens attend to the beginning and to themselves. Shape (P, C, embed_dim)."""
    packed = _packed(lengths, suffix.device)
    which, place = packed.tokens
    x = (suffix[which, place] + clip_model.positional_embedding[start + place]).unsqueeze(0)
    blocks = clip_model.transformer.resblocks
    for i, (block, (key, value)) in enumerate(zip(blocks, shared, strict=True)):
        y = _attend(project(block, x), key, value, packed.mask)
        if i + 1 == len(blocks):  # the rest of the tower is for the ends of text alone
            x, y = x[:, packed.ends[0], packed.ends[1]], y[:, packed.ends[0], packed.ends[1]]
        x = feed_forward(block, x + block.attn.out_proj(y))
    return _read_out(clip_model, x)


def _attend(own: Sequence[Tensor], key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention of packed tokens to the beginning, which is not copied, and to their block.

    Args:
        own: Queries, keys and values of the tokens. Shape (P or 1, heads, blocks, length, d) each.
        key: Of the beginning. Shape (P, heads, prefix length, d).
        value: Likewise.
        mask: See `PackedClasses`.

    Returns:
        Shape (P, blocks, length, heads * d).
    """
    query, own_key, own_value = own
    query = query * query.shape[-1] ** -0.5
    to_prefix = (query.flatten(2, 3) @ key.transpose(-1, -2)).unflatten(2, mask.shape[:2])
    to_own = (query @ own_key.transpose(-1, -2)).masked_fill(~mask, float("-inf"))
    scores = torch.cat([to_prefix, to_own.expand(*to_prefix.shape[:-1], -1)], dim=-1)
    weights, own_weights = scores.softmax(dim=-1).split([key.shape[2], mask.shape[2]], dim=-1)
    y = (weights.flatten(2, 3) @ value).unflatten(2, mask.shape[:2]) + own_weights @ own_value
    return y.movedim(1, 3).flatten(3)
