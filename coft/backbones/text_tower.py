"""Fast text encoding of prompts with a shared prefix: the prefix is encoded once, then the tokens of each class.

A prompt is [start, context, class name, tail, end of text], with the same context for all classes. Attention is causal,
so the keys and values of the prefix [start, context] are the same for all classes, and tokens after the end of text do
not change the features. The prefix is encoded once per context. The tokens of a class then attend to the prefix and to
each other. The result is the same as with 77 tokens for every class.

Classes are packed into blocks of about 32 tokens. A token attends to the prefix, whose keys are stored once, and to its
block, in which a mask separates the classes. So no class is padded to the length of the longest one.
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

from coft.backbones.residual_block import add_attention, feed_forward, project
from coft.backbones.tower import TextTower, tower_of

BLOCK = 32  # tokens per block; the fastest of 16, 32 and 64
MEMORY_BUDGET = 2 << 30  # bytes of activations kept for the backward pass; classes beyond it are encoded twice
KEPT_CHUNKS, CHUNKS = 3, 4  # of four chunks per budget, three keep activations, one is for recomputed chunks
TENSORS_KEPT = 17  # tensors of shape (width,) that each layer keeps per token
KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class PackedClasses:
    """Tokens of classes, packed into blocks.

    Attributes:
        tokens: Class index, and token index within the class, at each position. Shape (2, blocks, length).
        mask: Whether a token (second dimension) attends to another (third). Shape (blocks, length, length), bool.
        ends: Block and position of the last token of each class. Shape (2, C).
    """

    tokens: Tensor
    mask: Tensor
    ends: Tensor

    def to(self, device: torch.device) -> PackedClasses:
        """Return a copy on a device."""
        return PackedClasses(self.tokens.to(device), self.mask.to(device), self.ends.to(device))


def pack(lengths: Sequence[int], block: int = BLOCK) -> PackedClasses:
    """Pack classes into blocks, the longest first, each into the first block with enough room (first-fit decreasing).

    Args:
        lengths: Number of tokens of each class.
        block: Tokens per block; more if a class is longer, fewer if all classes together are shorter.

    Returns:
        Packed tokens. Free positions hold the first token of class 0, and no class attends to them.
    """
    size = min(max(block, *lengths), sum(lengths))
    blocks: list[list[int]] = []
    free_tokens: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        chosen_block = next((b for b, free in enumerate(free_tokens) if free >= lengths[index]), len(blocks))
        if chosen_block == len(blocks):
            blocks.append([])
            free_tokens.append(size)
        blocks[chosen_block].append(index)
        free_tokens[chosen_block] -= lengths[index]
    tokens = torch.zeros(2, len(blocks), size, dtype=torch.long)
    owner = torch.full((len(blocks), size), -1)
    ends = torch.empty(2, len(lengths), dtype=torch.long)
    for row, members in enumerate(blocks):
        position = 0
        for index in members:
            after = position + lengths[index]
            owner[row, position:after] = index
            tokens[0, row, position:after] = index
            tokens[1, row, position:after] = torch.arange(lengths[index])
            ends[:, index] = torch.tensor([row, after - 1])
            position = after
    mask = (owner.unsqueeze(2) == owner.unsqueeze(1)).tril_()
    return PackedClasses(tokens, mask, ends)


@lru_cache(maxsize=64)
def _pack_cached(lengths: tuple[int, ...], device: torch.device) -> PackedClasses:
    return pack(lengths).to(device)


def encode_text(clip_model: Any, embeddings: Tensor, ends: Tensor, budget: int = MEMORY_BUDGET) -> Tensor:
    """Encode token embeddings that are cut at the end of the longest prompt.

    If the text tower `reads_at_end`, tokens after the end of text do not change the features, and prompts need no
    padding to 77 tokens. For other towers they are padded.

    Args:
        clip_model: A CLIP of any family.
        embeddings: Token embeddings, without positions. Shape (n, length, width).
        ends: Index of the end-of-text token of each prompt. Shape (n,).
        budget: Bytes of activations kept for the backward pass. Chunks of prompts beyond it are recomputed there.

    Returns:
        Unnormalized features. Shape (n, embed_dim).
    """
    tower = tower_of(clip_model)
    encode, length = (
        (_encode_cut, embeddings.shape[1]) if tower.reads_at_end else (_encode_padded, len(tower.positions))
    )
    chunks = _chunks(tower, [length] * len(embeddings), 1, budget)
    return torch.cat(_map_checkpointed(encode, [(tower, embeddings[part], ends[part]) for part in chunks]))


def _encode_cut(tower: TextTower, embeddings: Tensor, ends: Tensor) -> Tensor:
    x = embeddings + tower.positions[: embeddings.shape[1]]
    mask = x.new_full((x.shape[1], x.shape[1]), float("-inf")).triu_(1)
    rows = torch.arange(len(x), device=x.device)
    x = x if tower.batch_first else x.transpose(0, 1)
    for block in tower.blocks:
        x = tower.run_causal(block, x, mask)
    return tower.read_out(x[rows, ends] if tower.batch_first else x[ends, rows])


def _encode_padded(tower: TextTower, embeddings: Tensor, ends: Tensor) -> Tensor:
    return tower.read_out(tower.run_padded(embeddings, ends))


def _map_checkpointed(function: Callable[..., Tensor], pieces: Sequence[tuple[Any, ...]]) -> list[Tensor]:
    """Apply a function to each piece, with activation checkpointing for all but the first `KEPT_CHUNKS` pieces."""
    num_kept = KEPT_CHUNKS if torch.is_grad_enabled() else len(pieces)
    kept = [function(*piece) for piece in pieces[:num_kept]]
    rest = [checkpoint(function, *piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces[num_kept:]]
    return kept + rest


def encode_classes(
    clip_model: Any,
    prefix: Tensor,
    suffix: Tensor,
    lengths: Sequence[int],
    budget: int = MEMORY_BUDGET,
) -> Tensor:
    """Encode prompts with a shared prefix.

    Args:
        clip_model: A CLIP whose text tower `shares_prefix`.
        prefix: Token embeddings of [start, context], without positions, of P prompts. Shape (P, length, width).
        suffix: Token embeddings of [name, tail, end of text] of C classes, padded. Shape (C, longest, width).
        lengths: Number of tokens of each class in `suffix`, C numbers.
        budget: Bytes of activations kept for the backward pass. Chunks of classes beyond it are recomputed there.

    Returns:
        Unnormalized features. Shape (P, C, embed_dim).
    """
    tower = tower_of(clip_model)
    shared = _prefix_keys_values(tower, prefix)
    pieces = [
        (tower, shared, suffix[part], tuple(lengths[part]), prefix.shape[1])
        for part in _chunks(tower, lengths, len(prefix), budget)
    ]
    return torch.cat(_map_checkpointed(_class_features, pieces), dim=1)


def _chunks(tower: TextTower, lengths: Sequence[int], prompts: int, budget: int) -> list[slice]:
    """Split classes into chunks of a quarter of the budget each; one chunk if the budget suffices for all."""
    bytes_per_token = prompts * len(tower.blocks) * tower.width * TENSORS_KEPT * tower.positions.element_size()
    if sum(lengths) * bytes_per_token <= budget:
        return [slice(0, len(lengths))]
    tokens_per_chunk = max(1, budget // CHUNKS // bytes_per_token)
    starts, tokens = [0], 0
    for i, length in enumerate(lengths):
        if tokens and tokens + length > tokens_per_chunk:
            starts.append(i)
            tokens = 0
        tokens += length
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(lengths)], strict=True)]


def _prefix_keys_values(tower: TextTower, prefix: Tensor) -> list[KeysValues]:
    """Compute the prefix's keys and values in every layer. Shape (P, heads, length, width / heads) each."""
    x = prefix + tower.positions[: prefix.shape[1]]
    result = []
    for i, block in enumerate(tower.blocks):
        query, key, value = project(block, x)
        result.append((key, value))
        if i + 1 < len(tower.blocks):
            y = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = feed_forward(block, add_attention(block, x, y.transpose(1, 2).flatten(2)))
    return result


def _class_features(
    tower: TextTower,
    shared: Sequence[KeysValues],
    suffix: Tensor,
    lengths: tuple[int, ...],
    start: int,
) -> Tensor:
    """Encode classes whose tokens attend to the prefix and to their own class. Shape (P, C, embed_dim)."""
    packed = _pack_cached(lengths, suffix.device)
    class_index, position = packed.tokens
    x = (suffix[class_index, position] + tower.positions[start + position]).unsqueeze(0)
    for i, (block, (key, value)) in enumerate(zip(tower.blocks, shared, strict=True)):
        y = _attend(project(block, x), key, value, packed.mask)
        if i + 1 == len(tower.blocks):  # after the last attention, only the ends of text are needed
            x, y = x[:, packed.ends[0], packed.ends[1]], y[:, packed.ends[0], packed.ends[1]]
        x = feed_forward(block, add_attention(block, x, y))
    return tower.read_out(x)


def _attend(queries_keys_values: Sequence[Tensor], key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Compute attention of packed tokens to the prefix, which is not copied per block, and to their block.

    Args:
        queries_keys_values: Queries, keys and values of the tokens. Shape (P or 1, heads, blocks, length, d) each.
        key: Keys of the prefix. Shape (P, heads, prefix length, d).
        value: Values of the prefix. Shape (P, heads, prefix length, d).
        mask: Whether a token attends to another of its block. Shape (blocks, length, length), bool.

    Returns:
        Attention output, heads concatenated. Shape (P, blocks, length, heads * d).
    """
    query, block_key, block_value = queries_keys_values
    query = query * query.shape[-1] ** -0.5
    prefix_scores = (query.flatten(2, 3) @ key.transpose(-1, -2)).unflatten(2, mask.shape[:2])
    block_scores = (query @ block_key.transpose(-1, -2)).masked_fill(~mask, float("-inf"))
    scores = torch.cat([prefix_scores, block_scores.expand(*prefix_scores.shape[:-1], -1)], dim=-1)
    prefix_weights, block_weights = scores.softmax(dim=-1).split([key.shape[2], mask.shape[2]], dim=-1)
    y = (prefix_weights.flatten(2, 3) @ value).unflatten(2, mask.shape[:2]) + block_weights @ block_value
    return y.movedim(1, 3).flatten(3)
