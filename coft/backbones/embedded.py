"""The embedded CLIPs' compact checkpoints: reading them, and expanding them to what ``clip`` itself loads.

A compact checkpoint stores the rows of those tokens that pre-training used. The other tokens of CLIP's
vocabulary get an embedding from their spelling, so that names with unseen words stay apart.
"""

import zlib
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from clip.simple_tokenizer import SimpleTokenizer
from torch import Tensor

FORMAT = "coft-clip/1"
VOCABULARY = 49408
SPELLING_BUCKETS = 2048
OWN_SHARE = 0.25  # of an unseen token's length that comes from the token alone, not from its letters


def load_embedded(path: str | Path) -> dict[str, Tensor]:
    """Read a compact checkpoint and expand it.

    Args:
        path: A file like ``weights/embedded.pt``.

    Returns:
        A state dict for ``clip.model.build_model``.

    Raises:
        ValueError: The file is no compact checkpoint.
        FileNotFoundError: There is no such file.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises many kinds, depending on where the bytes stop making sense
        raise ValueError(f"{path}: not a checkpoint of the embedded CLIP ({type(error).__name__})") from None
    problem = _problem(checkpoint)
    if problem:
        raise ValueError(f"{path}: not a checkpoint of the embedded CLIP: {problem}")
    return expand(checkpoint)


def _problem(checkpoint: Any) -> str | None:
    """What is wrong with a checkpoint, in a few words; None when it is in order."""
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        return f"expected a dict with format {FORMAT!r}"
    for key, kind in (("state_dict", dict), ("token_ids", Tensor), ("spelling", dict)):
        if not isinstance(checkpoint.get(key), kind):
            return f"expected {key!r} as {kind.__name__}"
    rows = checkpoint["state_dict"].get("token_embedding.weight")
    ids = checkpoint["token_ids"]
    if rows is None or len(rows) != len(ids):
        return "token_ids and token_embedding.weight differ in length"
    if not (ids.diff() > 0).all() or ids[0] < 0 or ids[-1] >= VOCABULARY:
        return f"token_ids must be sorted, distinct and below {VOCABULARY}"
    return None


def expand(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """Turn a compact checkpoint into a full state dict for ``clip.model.build_model``.

    Args:
        checkpoint: What ``torch.load`` gives for a compact checkpoint.

    Returns:
        OpenAI's names, fp16, with ``[49408, width]`` token embeddings. Every call makes new tensors.
    """
    state_dict = {name: value.clone() for name, value in checkpoint["state_dict"].items()}
    ids = checkpoint["token_ids"]
    rows = spelled_embeddings(checkpoint["spelling"]).to(state_dict["token_embedding.weight"].dtype)
    rows[ids] = state_dict["token_embedding.weight"]
    state_dict["token_embedding.weight"] = rows
    return state_dict


def spelled_embeddings(spelling: dict[str, Any]) -> Tensor:
    """Embeddings of all tokens from their spelling alone, float32 ``[49408, D]``.

    The sums run over whole numbers that floats hold exactly, in any order, and the rest is element by element:
    every machine gets the same bits.

    Args:
        spelling: ``weight`` int8 ``[SPELLING_BUCKETS, D]``, ``scale`` and ``norm`` as floats.
    """
    weight = spelling["weight"]
    buckets, starts = _spellings()
    total = F.embedding_bag(buckets, weight.float(), starts[:-1], mode="sum")
    shared = total.double() / starts.diff()[:, None] * spelling["scale"]
    own = _own_signs(weight.shape[1]).double() * (OWN_SHARE * spelling["norm"] / weight.shape[1] ** 0.5)
    return (shared + own).float()


@cache
def _own_signs(width: int) -> Tensor:
    """A pattern of signs per token, from an integer hash of the token's number; int8 ``[49408, width]``."""
    token = torch.arange(VOCABULARY)[:, None]
    mixed = (token * 2654435761 + torch.arange(width) * 40503 + 12345) % 4294967291
    mixed = (mixed * 48271) % 2147483647
    mixed = (mixed ^ (mixed >> 13)) * 16807 % 2147483647
    return ((mixed >> 11) % 2 * 2 - 1).to(torch.int8)


def spelling_matrix(ids: Tensor) -> Tensor:
    """How often each bucket of letter groups occurs in each token, float32 ``[len(ids), SPELLING_BUCKETS]``."""
    buckets, starts = _spellings()
    rows = torch.arange(len(ids)).repeat_interleave(starts.diff()[ids])
    columns = torch.cat([buckets[starts[token] : starts[token + 1]] for token in ids.tolist()])
    counts = torch.zeros(len(ids), SPELLING_BUCKETS)
    return counts.index_put_((rows, columns), torch.ones(len(rows)), accumulate=True)


@cache
def _spellings() -> tuple[Tensor, Tensor]:
    """The buckets of all tokens' letter groups, one token after the other, and where each token's begin and end."""
    decoder = SimpleTokenizer().decoder
    spelled = [_buckets(decoder[token]) for token in range(VOCABULARY)]
    starts = torch.tensor([0, *map(len, spelled)]).cumsum(0)
    return torch.tensor([bucket for buckets in spelled for bucket in buckets]), starts


def _buckets(token: str) -> list[int]:
    """Buckets of the groups of two to four letters of a token, marks of its start and end included."""
    spelled = "<" + token.replace("</w>", ">")
    groups = [spelled[i : i + size] for size in (2, 3, 4) for i in range(len(spelled) - size + 1)]
    return [zlib.crc32(group.encode()) % SPELLING_BUCKETS for group in groups]
