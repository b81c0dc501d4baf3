"""Quality of pseudo-labels. In a label-free run, only this module and the evaluator read labels.

Its results are for logs and reports; nothing that a trainer trains on comes from here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

BINS = 15  # confidence intervals of equal width, within each of which confidence and accuracy are compared


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Compute the expected calibration error (Guo et al. 2017): the mean absolute gap of confidence and accuracy.

    Args:
        confidence: Probability of each prediction, in [0, 1]. Shape (n,).
        right: Whether each prediction is right. Shape (n,).

    Returns:
        Calibration error in [0, 1]; NaN without images.
    """
    place = (confidence.double() * BINS).long().clamp(max=BINS - 1)
    gaps = torch.zeros(BINS, dtype=torch.double).index_add_(0, place, confidence.double() - right.double())
    return float(gaps.abs().sum() / len(right)) if len(right) else math.nan


class Diagnostics:
    """Comparison of pseudo-labels with the labels that a benchmark ships.

    Args:
        labels: Label of each image, in the order of the pool. Negative labels are unknown.
    """

    def __init__(self, labels: Sequence[int] | Tensor) -> None:
        self._labels = torch.as_tensor(labels, dtype=torch.long).clone()

    def accuracy(self, index: Tensor, labels: Tensor) -> float:
        """Return the share of right pseudo-labels among images with a known label, in [0, 1]; NaN without any."""
        truth = self._labels[index]
        has_label = truth >= 0
        return float((truth[has_label] == labels[has_label]).float().mean()) if has_label.any() else math.nan

    def recall(self, labels: Tensor, keep: Tensor) -> float:
        """Return the share of the right pseudo-labels that are kept, in [0, 1]; NaN if none is right."""
        right = self._labels == labels
        return float(keep[right].float().mean()) if right.any() else math.nan

    def auroc(self, score: Tensor, labels: Tensor) -> float:
        """Return the AUROC of a score that separates right from wrong pseudo-labels; NaN if all are right or wrong."""
        has_label = self._labels >= 0
        right = (self._labels == labels)[has_label]
        if not has_label.any() or right.all() or not right.any():
            return math.nan
        from sklearn.metrics import roc_auc_score  # here, since the import is slow

        return float(roc_auc_score(right.numpy(), score[has_label].numpy()))
