"""How good pseudo-labels are. The only place, beside the evaluator, that looks at labels of the unlabeled images.

Nothing here returns anything that a trainer may train on: numbers for people to read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def calibration_error(confidence: Tensor, right: Tensor, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017): how far confidence is from accuracy, on the mean over the images.

    Args:
        confidence: Probability of each prediction, in [0, 1]. Shape (n,).
        right: Whether it is right. Shape (n,).
        bins: Intervals of equal width, within each of which means are compared.

    Returns:
        In [0, 1]; NaN without an image.
    """
    place = (confidence.double() * bins).long().clamp(max=bins - 1)
    gaps = torch.zeros(bins, dtype=torch.double).index_add_(0, place, confidence.double() - right.double())
    return float(gaps.abs().sum() / len(right)) if len(right) else math.nan


class Diagnostics:
    """Compares pseudo-labels with the labels that a benchmark ships.

    Args:
        labels: Label of each image in the pool's order; a negative one is unknown.
    """

    def __init__(self, labels: Sequence[int] | Tensor) -> None:
        self._labels = torch.as_tensor(labels, dtype=torch.long).clone()

    def accuracy(self, index: Tensor, labels: Tensor) -> float:
        """Share of right pseudo-labels among images whose label is known, in [0, 1]; NaN without any."""
        truth = self._labels[index]
        has_label = truth >= 0
        return float((truth[has_label] == labels[has_label]).float().mean()) if has_label.any() else math.nan

    def wrong(self, labels: Tensor) -> Tensor:
        """Which pseudo-labels of all images are wrong; those of images without a known label are not. Shape (N,)."""
        return (self._labels >= 0) & (self._labels != labels)

    def cluster_accuracy(self, labels: Tensor) -> float:
        """Share of right labels of all images if classes swapped names in the best way, as clusterings are measured.

        What it is above `accuracy` are images that are separated, but under another class's name. NaN without a known
        label.
        """
        has_label = self._labels >= 0
        if not has_label.any():
            return math.nan
        from scipy.optimize import linear_sum_assignment  # takes long

        truth, labels = self._labels[has_label], labels[has_label]
        classes = int(torch.maximum(truth, labels).max()) + 1
        together = torch.bincount(truth * classes + labels, minlength=classes**2).reshape(classes, classes).numpy()
        return float(together[linear_sum_assignment(together, maximize=True)].sum() / len(truth))

    def recall(self, labels: Tensor, keep: Tensor) -> float:
        """Share of the right pseudo-labels of all images that are kept, in [0, 1]; NaN without a right one."""
        right = self._labels == labels
        return float(keep[right].float().mean()) if right.any() else math.nan

    def auroc(self, score: Tensor, labels: Tensor) -> float:
        """How well a score tells right from wrong pseudo-labels of all images; NaN if all are right, or wrong."""
        has_label = self._labels >= 0
        right = (self._labels == labels)[has_label]
        if not has_label.any() or right.all() or not right.any():
            return math.nan
        from sklearn.metrics import roc_auc_score  # takes long

        return float(roc_auc_score(right.numpy(), score[has_label].numpy()))
