"""The compact checkpoint: trained weights as fp16, trained token rows only, and spellings for the others."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coft.backbones.embedded import FORMAT, SPELLING_BUCKETS, spelling_matrix

RIDGE = 3.0


def compact(state_dict: dict[str, Tensor], token_ids: list[int], meta: dict[str, Any]) -> dict[str, Any]:
    """Pack a trained model.

    Args:
        state_dict: OpenAI's names; ``token_embedding.weight`` has one row per entry of ``token_ids``.
        token_ids: Sorted ids in the full vocabulary.
        meta: Facts about the model, of plain types.
    """
    kept = {
        name: value.detach().half() if value.is_floating_point() else value.detach()
        for name, value in state_dict.items()
    }
    rows = state_dict["token_embedding.weight"].detach().float()
    ids = torch.tensor(token_ids)
    return {
        "format": FORMAT,
        "state_dict": kept,
        "token_ids": ids,
        "spelling": fit_spelling(rows, ids),
        "meta": meta,
    }


def _half(value: Tensor) -> Tensor:
    return value.detach().half() if value.is_floating_point() else value.detach()


def fit_spelling(rows: Tensor, ids: Tensor) -> dict[str, Any]:
    """Ridge regression from the spelling of tokens to their trained embeddings, in whole numbers.

    Args:
        rows: Trained embeddings, ``[N, D]``.
        ids: Their tokens, ``[N]``.

    Returns:
        ``{"weight": int8 [SPELLING_BUCKETS, D], "scale": float, "norm": float}``; ``norm`` is the typical
        length of a trained row.
    """
    spelled = spelling_matrix(ids).double()
    spelled = spelled / spelled.sum(1, keepdim=True).clamp_min(1)
    gram = spelled.t() @ spelled + RIDGE / SPELLING_BUCKETS * torch.eye(SPELLING_BUCKETS, dtype=torch.double)
    solved = torch.linalg.solve(gram, spelled.t() @ rows.double())
    scale = float(solved.abs().quantile(0.999)) / 127
    weight = (solved / scale).round().clamp(-127, 127).to(torch.int8)
    return {"weight": weight, "scale": scale, "norm": float(rows.norm(dim=1).median())}


def save(checkpoint: dict[str, Any], path: Path) -> None:
    """Write under a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    torch.save(checkpoint, unfinished)
    unfinished.rename(path)
