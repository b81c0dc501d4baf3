"""Calibration without labels: temperatures of scores, fitted to pseudo-labels and to the frozen CLIP's belief.

The share of right pseudo-labels is unknown, but two estimates bound it. That all are right is too much. What the frozen
CLIP believes is too little, because a trained model corrects some of its errors. Scores are calibrated to the mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.core.table import Table

SAMPLE = 4096  # maximum number of images that a temperature is fitted to
HALF_WEIGHT_COUNT = 5  # images per class at which the Gaussians have half of the weight
LOG_T_RANGE = (-3.0, 9.0)  # of the bisection
BISECTION_STEPS = 48  # if they were fewer, rounding of the sums could make T jump

MAX_CALIBRATION_GAP = 0.1  # largest gap of mean confidence and accuracy in the benchmark (docs/results.md)


def estimated_range(confidence: float) -> tuple[float, float]:
    """Return bounds of the accuracy, estimated from the mean confidence of a calibrated model, within [0, 1]."""
    return max(0.0, confidence - MAX_CALIBRATION_GAP), min(1.0, confidence + MAX_CALIBRATION_GAP)


@dataclass(frozen=True)
class Belief:
    """The frozen CLIP's class probabilities of all images: from text, corrected by neighbours and Gaussians.

    Attributes:
        scores: Log-probabilities, up to a constant. Shape (N, C).
        spread: Log-probabilities before the correction by Gaussians. Shape (N, C).
    """

    scores: Table
    spread: Table

    def probabilities(self, index: Tensor) -> Tensor:
        """Return the belief about some images, with less weight on the Gaussians if there are few images per class.

        With n images per class, the Gaussians have weight n / (n + 5): with few, they fit any of their own images.

        Args:
            index: Indices of the images. Shape (n,).

        Returns:
            Probabilities. Shape (n, C), fp64.
        """
        log_p = self.scores.at(index).double().log_softmax(dim=1)
        of_class = len(self.scores) / log_p.shape[1]
        share = of_class / (of_class + HALF_WEIGHT_COUNT)
        return ((1 - share) * self.spread.at(index).double().log_softmax(dim=1) + share * log_p).softmax(dim=1)


@dataclass(frozen=True)
class Calibration:
    """Fits temperatures of scores to some images: to the mean of their pseudo-labels and of the belief about them.

    Attributes:
        belief: The belief.
        index: Indices of the images. Shape (n,).
        label: Pseudo-labels of these images. Shape (n,).
    """

    belief: Belief
    index: Tensor
    label: Tensor

    @classmethod
    def of_pool(cls, belief: Belief, label: Tensor) -> Calibration:
        """Choose evenly spaced images of the pool, whose pseudo-labels have shape (N,)."""
        index = evenly_spaced(len(label))
        return cls(belief, index, label[index])

    def temperature(self, scores: Tensor) -> float:
        """Fit the temperature by which the scores of these images, shape (n, C), are divided."""
        believed = self.belief.probabilities(self.index)
        return fit_temperature(scores.double(), (believed + F.one_hot(self.label, believed.shape[1])) / 2)

    def temperature_of(self, scores: Table) -> float:
        """Fit the temperature by which the scores of all images, shape (N, C), are divided."""
        return self.temperature(scores.at(self.index))


def evenly_spaced(count: int) -> Tensor:
    """Return evenly spaced image indices, at most SAMPLE of them. Shape (n,)."""
    return torch.arange(0, count, math.ceil(count / SAMPLE))


def fit_temperature(scores: Tensor, probabilities: Tensor) -> float:
    """Return the temperature T that minimises the cross-entropy of softmax(scores / T) with target probabilities.

    The cross-entropy is convex in 1 / T, so the root of its slope is found by bisection.

    Args:
        scores: Shape (n, C), fp64.
        probabilities: Targets. Shape (n, C).
    """
    low, high = LOG_T_RANGE
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        slope = (((scores / math.exp(middle)).softmax(dim=1) - probabilities) * scores).sum()
        low, high = (middle, high) if slope > 0 else (low, middle)
    return math.exp((low + high) / 2)
