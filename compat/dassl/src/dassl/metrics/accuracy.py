"""Top-k accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def compute_accuracy(output: Tensor | Sequence[Tensor], target: Tensor, topk: Sequence[int] = (1,)) -> list[Tensor]:
    """Compute the share of samples whose label is among the k highest logits.

    Args:
        output: Logits, shape (B, C), or a tuple or list whose first entry they are.
        target: Labels. Shape (B,).
        topk: Values of k.

    Returns:
        For each k a tensor of shape (1,): accuracy in percent.
    """
    logits: Tensor = output if isinstance(output, Tensor) else output[0]
    ranked = logits.topk(max(topk), dim=1).indices
    hits = ranked == target.reshape(-1, 1)
    return [hits[:, :k].any(dim=1).float().mean().mul(100).reshape(1) for k in topk]
