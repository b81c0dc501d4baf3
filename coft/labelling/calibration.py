"""How sure scores may be: their temperature, by what the frozen CLIP believes of the same images.

Without labels nothing says how many pseudo-labels are right. Two counts bound it. That each first label is right is
too much, for a trained model repeats its errors. That it is right as often as the frozen CLIP itself believes is too
little, for a trained model corrects some. Scores are made as sure as the mean of both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.core.table import Table

SAMPLE = 4096  # images that a temperature is fitted to, at most
FEW = 5  # images a class at which Gaussians count half
RANGE, HALVINGS = (-3.0, 9.0), 48  # where log T is looked for; coarser, T would jump where sums differ by rounding

MISSED = 0.11  # at most, by which mean confidence missed accuracy on the development units (docs/results.md)


def estimated_range(confidence: float) -> tuple[float, float]:
    """Where the accuracy is thought to be, by the mean confidence of a calibrated model, in [0, 1]."""
    return max(0.0, confidence - MISSED), min(1.0, confidence + MISSED)


@dataclass(frozen=True)
class Belief:
    """What the frozen CLIP believes of all images: text, neighbours and Gaussians.

    Attributes:
        scores: Log-probabilities, up to a constant. Shape (N, C).
        spread: The same before the Gaussians; None where there are none.
    """

    scores: Table
    spread: Table | None = None

    def temperature(self, scores: Table) -> float:
        """The T by which scores of all images, shape (N, C), are divided."""
        index = sample(len(scores))
        return self.temperature_at(index, scores.at(index))

    def temperature_at(self, index: Tensor, scores: Tensor) -> float:
        """The T by which scores of some images are divided.

        Args:
            index: Which images. Shape (n,).
            scores: Shape (n, C).
        """
        believed = self.probabilities(index)
        surely = F.one_hot(believed.argmax(dim=1), believed.shape[1])
        return calibrated(scores.double(), (believed + surely) / 2)

    def probabilities(self, index: Tensor) -> Tensor:
        """What is believed of some images, shape (n, C), fp64. Gaussians of few images count less.

        Of n images a class, Gaussians count n / (n + FEW): with few, they fit any of their own images.
        """
        log_p = self.scores.at(index).double().log_softmax(dim=1)
        if self.spread is None:
            return log_p.exp()
        of_class = len(self.scores) / log_p.shape[1]
        share = of_class / (of_class + FEW)
        return ((1 - share) * self.spread.at(index).double().log_softmax(dim=1) + share * log_p).softmax(dim=1)


def sample(count: int) -> Tensor:
    """Every so manieth of some images, at most SAMPLE. Shape (n,)."""
    return torch.arange(0, count, math.ceil(count / SAMPLE))


def calibrated(scores: Tensor, probabilities: Tensor) -> float:
    """The T for which softmax(scores / T) is closest to some probabilities: the least cross-entropy.

    It is convex in 1 / T: its slope is 0 where it is least, and is bisected.

    Args:
        scores: Shape (n, C), fp64.
        probabilities: Shape (n, C).
    """
    low, high = RANGE
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        slope = (((scores / math.exp(middle)).softmax(dim=1) - probabilities) * scores).sum()
        low, high = (middle, high) if slope > 0 else (low, middle)
    return math.exp((low + high) / 2)
