"""Compact checkpoints of the embedded CLIPs, and their expansion to state dicts for `clip`.

A compact checkpoint stores the embeddings of the tokens that occurred in pre-training. All other tokens of CLIP's
vocabulary get an embedding computed from their spelling, so that class names with unseen words have distinct features.
"""

import zlib
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.backbones.tokens import BPE
from coft.core.schemas import Anything, Number, Record, SchemaError, Text
from coft.core.tensors import Array, floats

FORMAT = "coft-clip/1"
VOCABULARY = 49408
SPELLING_BUCKETS = 2048
WIDTH = (1, 16_384)
SCHEMA = Record(
    {
        "format": Text(choices=(FORMAT,)),
        "state_dict": Record({"token_embedding.weight": floats((1, VOCABULARY), WIDTH)}, others=Array()),
        "token_ids": Array(((1, VOCABULARY),), (torch.int64,)),
        "spelling": Record(
            {
                "weight": Array(((SPELLING_BUCKETS, SPELLING_BUCKETS), WIDTH), (torch.int8,)),
                "scale": Number(0, 1e6),
                "norm": Number(0, 1e6),
            }
        ),
    },
    others=Anything(),
)
CHUNK = 2048  # tokens embedded at a time, so that intermediate results stay in the cache
TOKEN_SHARE = 0.25  # share of an unseen token's norm that comes from its token id, not from its letters


def expand(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """Turn a compact checkpoint into a full state dict for ``clip.model.build_model``.

    Args:
        checkpoint: Content of a compact checkpoint.

    Returns:
        New fp16 tensors by OpenAI's names. Token embeddings have shape (49408, width).

    Raises:
        SchemaError: If its parts do not fit together.
    """
    rows, ids = checkpoint["state_dict"]["token_embedding.weight"], checkpoint["token_ids"]
    if len(rows) != len(ids) or rows.shape[1] != checkpoint["spelling"]["weight"].shape[1]:
        raise SchemaError("token_ids, token_embedding.weight and spelling differ in length")
    if not (ids.diff() > 0).all() or ids[0] < 0 or ids[-1] >= VOCABULARY:
        raise SchemaError(f"token_ids must be sorted, distinct and below {VOCABULARY}")
    state_dict = {name: value.clone() for name, value in checkpoint["state_dict"].items()}
    rows = spelled_embeddings(checkpoint["spelling"]).to(state_dict["token_embedding.weight"].dtype)
    rows[ids] = state_dict["token_embedding.weight"]
    state_dict["token_embedding.weight"] = rows
    return state_dict


def spelled_embeddings(spelling: dict[str, Any]) -> Tensor:
    """Compute embeddings of all tokens from their spelling alone.

    All machines get the same bits: sums are over integers, which floats represent exactly in any order, and all other
    operations are elementwise.

    Args:
        spelling: "weight", int8 of shape (SPELLING_BUCKETS, D), and the floats "scale" and "norm".

    Returns:
        Embeddings. Shape (49408, D), float32.
    """
    weight = spelling["weight"].float()
    width = weight.shape[1]
    of_sign = TOKEN_SHARE * spelling["norm"] / width**0.5
    buckets, starts = _spellings()
    rows = torch.empty(VOCABULARY, width)
    for tokens in torch.arange(VOCABULARY).split(CHUNK):
        offsets = starts[tokens[0] : tokens[-1] + 2]  # one more than tokens
        letter_sums = F.embedding_bag(buckets[offsets[0] : offsets[-1]], weight, offsets[:-1] - offsets[0], mode="sum")
        letter_part = letter_sums.double() / offsets.diff()[:, None] * spelling["scale"]
        rows[tokens] = (letter_part + _signs(tokens, width).double() * of_sign).float()
    return rows


def _signs(tokens: Tensor, width: int) -> Tensor:
    """Return a pseudo-random sign pattern for each token id, hashed from it. Shape (n, width), int64."""
    mixed = (tokens[:, None] * 2654435761 + torch.arange(width) * 40503 + 12345) % 4294967291
    mixed = (mixed * 48271) % 2147483647
    mixed = (mixed ^ (mixed >> 13)) * 16807 % 2147483647
    return (mixed >> 11) % 2 * 2 - 1


def spelling_matrix(ids: Tensor) -> Tensor:
    """Count the letter groups (n-grams) of tokens by hash bucket.

    Args:
        ids: Token ids. Shape (n,).

    Returns:
        Counts. Shape (n, SPELLING_BUCKETS), float32.
    """
    buckets, starts = _spellings()
    rows = torch.arange(len(ids)).repeat_interleave(starts.diff()[ids])
    columns = torch.cat([buckets[starts[token] : starts[token + 1]] for token in ids.tolist()])
    counts = torch.zeros(len(ids), SPELLING_BUCKETS)
    return counts.index_put_((rows, columns), torch.ones(len(rows)), accumulate=True)


@cache
def _spellings() -> tuple[Tensor, Tensor]:
    """Return the hash buckets of the letter groups of all tokens, concatenated, and the offset of each token."""
    decoder, bucket_of = BPE.decoder, cache(_bucket)  # most letter groups occur in many tokens
    buckets, starts = [], [0]
    for token in range(VOCABULARY):
        spelled = "<" + decoder[token].replace("</w>", ">")  # start and end of a word count as letters
        for size in (2, 3, 4):
            buckets += [bucket_of(spelled[i : i + size]) for i in range(len(spelled) - size + 1)]
        starts.append(len(buckets))
    return torch.tensor(buckets), torch.tensor(starts)


def _bucket(group: str) -> int:
    return zlib.crc32(group.encode()) % SPELLING_BUCKETS
