"""Losses on pseudo-labels: sums over images, with what they are to be divided by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .pseudo_labels import PseudoLabels


class Term(NamedTuple):
    """A mean over a batch that is a part of a loss, as the sum over some of its images and what that is divided by.

    Processes and micro-batches have parts of a batch. So whoever adds up the sums divides, by at least 1: few weights
    cannot make a large step, and a batch without any makes none.

    Attributes:
        total: Sum over the images at hand, with gradients. A scalar.
        divisor: Sum of the weights of the whole batch.
        coefficient: Of the mean in the loss; 0: it is reported and not trained on.
    """

    total: Tensor
    divisor: float
    coefficient: float = 1.0

    @property
    def mean(self) -> Tensor:
        """The mean, or this part's share of it."""
        return self.total / max(1.0, self.divisor)


def adjusted_cross_entropy(logits: Tensor, labels: PseudoLabels, batch: PseudoLabels, log_frequency: Tensor) -> Term:
    """Weighted cross-entropy of pseudo-labels, with logits adjusted by their class frequencies (Menon et al. 2021).

    What trains need not learn the imbalance that a filter leaves.

    Args:
        logits: Of some images of a batch. Shape (n, C).
        labels: Of these images, in this order.
        batch: Of all images of the batch.
        log_frequency: Of the classes, from `PseudoLabels.log_frequency`. Shape (C,).
    """
    device = logits.device
    adjusted = logits.float() + log_frequency.to(device)
    each = F.cross_entropy(adjusted, labels.label.to(device), reduction="none")
    return Term((each * labels.weight.to(device)).sum(), float(batch.weight.sum()))


def average_predictions(logits: Sequence[Tensor]) -> Tensor:
    """Average the probabilities of several models.

    Args:
        logits: Of each model, shape (n, C).

    Returns:
        Log of the mean of their softmaxes; the logits as they are of a single model. Shape (n, C).
    """
    if len(logits) == 1:
        return logits[0]
    return log_mean([x.softmax(dim=1) for x in logits])


def log_mean(probabilities: Sequence[Tensor] | Mapping[str, Tensor]) -> Tensor:
    """Log of the mean of several models' probabilities, shape (n, C) each. Shape (n, C)."""
    each = probabilities.values() if isinstance(probabilities, Mapping) else probabilities
    return torch.stack(list(each)).mean(dim=0).clamp_min(1e-30).log()
