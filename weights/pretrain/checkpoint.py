"""Compact checkpoints: weights in fp16, embeddings of the trained tokens, and a regression for the other tokens."""

from typing import Any

import torch
from torch import Tensor

from coft.backbones.embedded import FORMAT, SPELLING_BUCKETS, spelling_matrix

RIDGE = 3.0  # ridge of the regression from spellings to embeddings


def compact(state_dict: dict[str, Tensor], token_ids: list[int], meta: dict[str, Any]) -> dict[str, Any]:
    """Pack a trained model.

    Args:
        state_dict: Tensors by OpenAI's names; ``token_embedding.weight`` has one row per entry of ``token_ids``.
        token_ids: Sorted token ids in the full vocabulary.
        meta: Metadata of the model, of plain types.
    """
    rows = state_dict["token_embedding.weight"].detach().float()
    ids = torch.tensor(token_ids)
    return {
        "format": FORMAT,
        "state_dict": {name: _half(value) for name, value in state_dict.items()},
        "token_ids": ids,
        "spelling": fit_spelling(rows, ids),
        "meta": meta,
    }


def _half(value: Tensor) -> Tensor:
    return value.detach().half() if value.is_floating_point() else value.detach()


def fit_spelling(rows: Tensor, ids: Tensor) -> dict[str, Any]:
    """Fit a ridge regression from the spelling of tokens to their trained embeddings, with 8-bit weights.

    Args:
        rows: Trained embeddings, ``[N, D]``.
        ids: Token ids of the embeddings, ``[N]``.

    Returns:
        ``{"weight": int8 [SPELLING_BUCKETS, D], "scale": float, "norm": float}``; ``norm`` is the median norm of a
        trained embedding.
    """
    spelled = spelling_matrix(ids).double()
    spelled = spelled / spelled.sum(1, keepdim=True).clamp_min(1)
    gram = spelled.t() @ spelled + RIDGE / SPELLING_BUCKETS * torch.eye(SPELLING_BUCKETS, dtype=torch.double)
    solved = torch.linalg.solve(gram, spelled.t() @ rows.double())
    scale = float(solved.abs().quantile(0.999)) / 127
    weight = (solved / scale).round().clamp(-127, 127).to(torch.int8)
    return {"weight": weight, "scale": scale, "norm": float(rows.norm(dim=1).median())}
