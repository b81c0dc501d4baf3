"""The collaborative pseudo-label filter: what each peer is taught, given what both peers think.

A rule is a function of the peer's own opinion and the other's, to labels and how likely each is clean; COFT.FILTER
names one of `FILTERS`. With COFT.SOFT a label weighs as much; without, those above 1/2 count, and only they.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from coft.method.seeds import best_of_each


@dataclass(frozen=True)
class Opinion:
    """What one peer thinks of all unlabeled images.

    Attributes:
        labels: Its predictions. Shape (N,).
        probabilities: Softmax probability of every class, by the positive vectors alone. Shape (N, C).
        clean: p_clean of every class. Shape (N, C).
    """

    labels: Tensor
    probabilities: Tensor
    clean: Tensor

    @cached_property
    def confidence(self) -> Tensor:
        """Softmax probability of its labels. Shape (N,)."""
        return self.probability_of(self.labels)

    @cached_property
    def margin(self) -> Tensor:
        """Softmax probability of its labels less the greatest of another class. Shape (N,)."""
        first, second = self.probabilities.topk(2, dim=1).values.unbind(dim=1)
        return self.confidence - torch.where(self.confidence == first, second, first)

    def probability_of(self, labels: Tensor) -> Tensor:
        """Softmax probability of one label an image. Shape (N,)."""
        return self.probabilities.gather(1, labels.unsqueeze(1)).squeeze(1)

    def clean_at(self, labels: Tensor) -> Tensor:
        """p_clean of one label an image. Shape (N,)."""
        return self.clean.gather(1, labels.unsqueeze(1)).squeeze(1)


@dataclass(frozen=True)
class Lesson:
    """What a peer is taught: pseudo-labels, and how much each of them counts.

    Attributes:
        labels: Shape (N,).
        weight: From 0 to 1, or bool. Shape (N,).
    """

    labels: Tensor
    weight: Tensor

    @property
    def keep(self) -> Tensor:
        """Which labels are more likely clean than not. Shape (N,), bool."""
        return self.weight > 0.5


Rule = Callable[[Opinion, Opinion], Lesson]


def both(own: Opinion, other: Opinion) -> Lesson:
    """The other's labels, as clean as the one that doubts them more says: above 1/2 where both call them clean."""
    return Lesson(other.labels, torch.minimum(own.clean_at(other.labels), other.clean_at(other.labels)))


def peer(own: Opinion, other: Opinion) -> Lesson:
    """The other's labels, as clean as the other says."""
    return Lesson(other.labels, other.clean_at(other.labels))


def probability(own: Opinion, other: Opinion) -> Lesson:
    """As `both`, by softmax probabilities of the positive vectors instead of p_clean."""
    labels = other.labels
    return Lesson(labels, torch.minimum(own.probability_of(labels), other.probability_of(labels)))


def agree(own: Opinion, other: Opinion) -> Lesson:
    """The labels that both predict."""
    return Lesson(other.labels, own.labels == other.labels)


def oneself(own: Opinion, other: Opinion) -> Lesson:
    """The peer's own labels, as clean as it says itself."""
    return Lesson(own.labels, own.clean_at(own.labels))


def none(own: Opinion, other: Opinion) -> Lesson:
    """The other's labels, all of them."""
    return Lesson(other.labels, torch.ones_like(other.labels, dtype=torch.bool))


def threshold(bound: float) -> Rule:
    """The other's labels, where its confidence exceeds a bound: what cleanliness replaces."""

    def rule(own: Opinion, other: Opinion) -> Lesson:
        return Lesson(other.labels, other.confidence > bound)

    return rule


FILTERS: dict[str, Rule] = {
    "both": both,
    "peer": peer,
    "probability": probability,
    "agree": agree,
    "self": oneself,
    "none": none,
    "threshold-0.5": threshold(0.5),
    "threshold-0.95": threshold(0.95),
}


def harden(lesson: Lesson) -> Lesson:
    """Let labels that are more likely clean than not count in full, and the others not at all."""
    return Lesson(lesson.labels, lesson.keep)


def keep_best(lesson: Lesson, score: Tensor, at_least: int, num_classes: int) -> Lesson:
    """Let the best few of each class count in full in any case, so that no class is left without images.

    Args:
        lesson: What the rule gave.
        score: The higher, the sooner kept. Shape (N,).
        at_least: How many of each class at least, as far as there are so many.
        num_classes: C.

    Returns:
        The lesson with other weights. Ties go to the lower index.
    """
    weight = lesson.weight.clone()
    weight[best_of_each(score, lesson.labels, torch.full((num_classes,), at_least))[0]] = 1
    return Lesson(lesson.labels, weight)


def log_frequency(labels: Tensor, weight: Tensor, num_classes: int) -> Tensor:
    """Log class frequencies of weighted labels, each class counted once more than it occurs.

    Args:
        labels: Shape (n,).
        weight: Shape (n,).
        num_classes: C.

    Returns:
        Shape (C,).
    """
    counts = torch.ones(num_classes, dtype=torch.float64).index_add_(0, labels, weight.double())
    return (counts / counts.sum()).log().float()
