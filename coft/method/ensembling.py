"""Several models that predict as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def average_predictions(logits: Sequence[Tensor]) -> Tensor:
    """Average the probabilities of several models.

    Args:
        logits: Of each model, shape (n, C).

    Returns:
        Log of the mean of their softmaxes; the logits as they are of a single model. Shape (n, C).
    """
    if len(logits) == 1:
        return logits[0]
    return torch.stack([x.softmax(dim=1) for x in logits]).mean(dim=0).clamp_min(1e-30).log()
