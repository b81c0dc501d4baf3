"""Losses on pseudo-labels, and how the predictions of several models become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .pseudo_labels import PseudoLabels


def weighted_cross_entropy(logits: Tensor, label: Tensor, weight: Tensor, total: Tensor | None = None) -> Tensor:
    """Weighted mean of the samples' cross-entropies, or their weighted sum where all weights together are below 1.

    So few weights of a batch cannot make a large step, and a batch without any makes none.

    Args:
        logits: Shape (n, C).
        label: Shape (n,).
        weight: From 0 to 1. Shape (n,).
        total: Sum of the weights of the whole batch, where these are a part of it; the result is then its part of the
            mean.

    Returns:
        A scalar.
    """
    each = F.cross_entropy(logits, label, reduction="none")
    return (each * weight).sum() / (weight.sum() if total is None else total).clamp_min(1)


def adjusted_cross_entropy(
    logits: Tensor, labels: PseudoLabels, log_frequency: Tensor, batch: PseudoLabels | None = None
) -> Tensor:
    """`weighted_cross_entropy` of pseudo-labels, with logits adjusted by their class frequencies (Menon et al. 2021).

    What trains need not learn the imbalance that a filter leaves.

    Args:
        logits: Of some images. Shape (n, C).
        labels: Of these images, in this order.
        log_frequency: Of the classes, see `PseudoLabels.log_frequency`. Shape (C,).
        batch: Of the whole batch, where the images are a part of it.

    Returns:
        A scalar.
    """
    device = logits.device
    adjusted = logits.float() + log_frequency.to(device)
    total = None if batch is None else batch.weight.sum().to(device)
    return weighted_cross_entropy(adjusted, labels.label.to(device), labels.weight.to(device), total)


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


def log_mean(probabilities: Mapping[str, Tensor]) -> Tensor:
    """Log of the mean of several models' probabilities, shape (n, C) each. Shape (n, C)."""
    return torch.stack(list(probabilities.values())).mean(dim=0).clamp_min(1e-30).log()
