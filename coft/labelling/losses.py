"""Losses on pseudo-labels, as sums over images with their divisors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .pseudo_labels import PseudoLabels

SMALLEST = 1e-6  # lower bound of a mean prediction, whose logarithm is taken


class Term(NamedTuple):
    """One term of a loss: a mean over a batch, as the sum over part of its images and the divisor of the whole batch.

    A process or micro-batch has only part of a batch, and the means of all parts add up to that of the batch. The
    divisor counts as at least 1, so that small weights cannot make a large step.

    Attributes:
        total: Sum over the images of this part, with gradients. A scalar.
        divisor: Sum of the weights, or number of images, of the whole batch.
        coefficient: Coefficient of the mean in the loss; with 0 the mean is reported but not trained on.
    """

    total: Tensor
    divisor: float
    coefficient: float = 1.0

    @property
    def mean(self) -> Tensor:
        """Contribution of this part to the mean over the batch."""
        return self.total / max(1.0, self.divisor)


def weighted_cross_entropy(logits: Tensor, labels: PseudoLabels, batch: PseudoLabels) -> Term:
    """Compute weighted cross-entropy.

    Args:
        logits: Logits of some images of a batch. Shape (n, C).
        labels: Pseudo-labels of these images, in the same order.
        batch: Pseudo-labels of all images of the batch.
    """
    each = F.cross_entropy(logits.float(), labels.label.to(logits.device), reduction="none")
    return Term((each * labels.weight.to(logits.device)).sum(), float(batch.weight.sum()))


def adjusted_cross_entropy(logits: Tensor, labels: PseudoLabels, batch: PseudoLabels, log_frequency: Tensor) -> Term:
    """Compute weighted cross-entropy, with logits adjusted by the labels' class frequencies (Menon et al. 2021).

    The adjustment spares the model from learning the class imbalance that a filter leaves.

    Args:
        logits: Logits of some images of a batch. Shape (n, C).
        labels: Pseudo-labels of these images, in the same order.
        batch: Pseudo-labels of all images of the batch.
        log_frequency: Log class frequencies, from `PseudoLabels.log_frequency`. Shape (C,).
    """
    return weighted_cross_entropy(logits.float() + log_frequency.to(logits.device), labels, batch)


def fairness_term(probability: Tensor, whole: int, weight: float, mean: Tensor | None = None) -> dict[str, Term]:
    """Compute the term that balances the predicted classes: -1/C sum_c log q_c, where q is the mean prediction.

    Args:
        probability: Predicted probabilities of the images of a part of the batch. Shape (n, C).
        whole: Number of images in the whole batch.
        weight: Coefficient of the term; 0 for none.
        mean: Mean prediction of the whole batch, without gradients. Shape (C,). The gradients are exact: that of
            -log q_c is -1/q_c times that of q_c. If None, q is the mean of the part.

    Returns:
        The term under the name "unfair"; empty without one.
    """
    if not weight:
        return {}
    q = probability.mean(dim=0) if mean is None else mean.to(probability)
    unfair = -q.clamp_min(SMALLEST).log().mean()
    total = len(probability) * unfair
    if mean is not None:
        change = (probability - probability.detach()).sum(dim=0)  # zeros, with the gradients of the sums
        total = total - (change / q)[q > SMALLEST].sum() / len(q)
    return {"unfair": Term(total, whole, weight)}


def average_predictions(logits: Sequence[Tensor]) -> Tensor:
    """Average the probabilities of several models.

    Args:
        logits: Logits of each model. Shape (n, C) each.

    Returns:
        Log of the mean softmax; for a single model, its logits unchanged. Shape (n, C).
    """
    if len(logits) == 1:
        return logits[0]
    return log_mean([x.softmax(dim=1) for x in logits])


def log_mean(probabilities: Sequence[Tensor] | Mapping[str, Tensor]) -> Tensor:
    """Return the log of the mean of several models' probabilities, shape (n, C) each. Shape (n, C)."""
    each = probabilities.values() if isinstance(probabilities, Mapping) else probabilities
    return torch.stack(list(each)).mean(dim=0).clamp_min(1e-30).log()
