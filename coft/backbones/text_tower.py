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

from coft.backbones.residual_block import add_attention, feed_forward, project
from coft.backbones.tower import TextTower, tower_of

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


def encode_text(clip_model: Any, embeddings: Tensor, ends: Tensor, budget: int = MEMORY_BUDGET) -> Tensor:
    """Run a text tower over token embeddings that end at the longest prompt's end of text.

    Where attention is causal, what would follow the end of text cannot change the features that are read there:
    prompts need no padding to 77 tokens. Another tower gets its padding.

    Args:
        clip_model: A CLIP of any family, see `tower.tower_of`.
        embeddings: Token embeddings, without positions. Shape (n, length, width).
        ends: Index of each prompt's end-of-text token. Shape (n,).
        budget: Bytes that may be kept for the backward pass. Beyond, chunks of prompts are encoded once more there.

    Returns:
        Features, not normalised. Shape (n, embed_dim).
    """
    tower = tower_of(clip_model)
    encode, length = (
        (_encode_cut, embeddings.shape[1]) if tower.reads_at_end else (_encode_padded, len(tower.positions))
    )
    chunks = _chunks(tower, [length] * len(embeddings), 1, budget)
    return torch.cat(_in_turn(encode, [(tower, embeddings[part], ends[part]) for part in chunks]))


def _encode_cut(tower: TextTower, embeddings: Tensor, ends: Tensor) -> Tensor:
    x = embeddings + tower.positions[: embeddings.shape[1]]
    mask, rows = causal_mask(embeddings.shape[1], x), torch.arange(len(x), device=x.device)
    x = x if tower.batch_first else x.transpose(0, 1)
    for block in tower.blocks:
        x = tower.run_causal(block, x, mask)
    return tower.read_out(x[rows, ends] if tower.batch_first else x[ends, rows])


def _encode_padded(tower: TextTower, embeddings: Tensor, ends: Tensor) -> Tensor:
    return tower.read_out(tower.run_padded(embeddings, ends))


def _in_turn(function: Callable[..., Tensor], pieces: Sequence[tuple[Any, ...]]) -> list[Tensor]:
    """Call a function with each piece. Of all but the first few, the backward pass computes again what it needs."""
    again = KEPT_CHUNKS if torch.is_grad_enabled() else len(pieces)
    kept = [function(*piece) for piece in pieces[:again]]
    rest = [checkpoint(function, *piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces[again:]]
    return kept + rest


def shares_prefix(clip_model: Any) -> bool:
    """Whether classes can share the beginning of their prompts: a text tower of plain blocks with a causal mask."""
    return tower_of(clip_model).shares_prefix


def encode_classes(
    clip_model: Any,
    prefix: Tensor,
    suffix: Tensor,
    lengths: Sequence[int],
    budget: int = MEMORY_BUDGET,
) -> Tensor:
    """Encode prompts that share their beginning.

    Args:
        clip_model: A CLIP whose text tower `shares_prefix`.
        prefix: Token embeddings of [start, context], without positions, of P prompts. Shape (P, length, width).
        suffix: Token embeddings of [name, tail, end of text] of C classes, padded. Shape (C, longest, width).
        lengths: Number of tokens of each class in `suffix`, C of them.
        budget: Bytes that may be kept for the backward pass. Beyond, chunks of classes are encoded once more there.

    Returns:
        Features, not normalised. Shape (P, C, embed_dim).
    """
    tower = tower_of(clip_model)
    shared = _prefix_keys_values(tower, prefix)
    pieces = [
        (tower, shared, suffix[part], tuple(lengths[part]), prefix.shape[1])
        for part in _chunks(tower, lengths, len(prefix), budget)
    ]
    return torch.cat(_in_turn(_class_features, pieces), dim=1)


def _chunks(tower: TextTower, lengths: Sequence[int], prompts: int, budget: int) -> list[slice]:
    """Cut the classes into chunks of a quarter of the budget each; one chunk where the budget is enough."""
    each = prompts * len(tower.blocks) * tower.width * TENSORS_KEPT * tower.positions.element_size()
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


def _prefix_keys_values(tower: TextTower, prefix: Tensor) -> list[KeysValues]:
    """Keys and values of the beginning in every layer, each of shape (P, heads, length, width / heads)."""
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
    """Features of classes whose tokens attend to the beginning and to themselves. Shape (P, C, embed_dim)."""
    packed = _packed(lengths, suffix.device)
    which, place = packed.tokens
    x = (suffix[which, place] + tower.positions[start + place]).unsqueeze(0)
    for i, (block, (key, value)) in enumerate(zip(tower.blocks, shared, strict=True)):
        y = _attend(project(block, x), key, value, packed.mask)
        if i + 1 == len(tower.blocks):  # the rest of the tower is for the ends of text alone
            x, y = x[:, packed.ends[0], packed.ends[1]], y[:, packed.ends[0], packed.ends[1]]
        x = feed_forward(block, add_attention(block, x, y))
    return tower.read_out(x)


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
