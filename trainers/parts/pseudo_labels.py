"""The collaborative pseudo-label filter: what each peer is taught, given what both peers think.

A rule is a function of the peer's own opinion and the other's; COFT.FILTER names one of `FILTERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .seeds import best_of_each


@dataclass(frozen=True)
class Opinion:
    """What one peer thinks of all unlabeled images.

    Attributes:
        labels: Its predictions. Shape (N,).
        probabilities: Softmax probability of every class. Shape (N, C).
        clean: p_clean of every class. Shape (N, C).
    """

    labels: Tensor
    probabilities: Tensor
    clean: Tensor

    @cached_property
    def confidence(self) -> Tensor:
        """Its greatest softmax probability. Shape (N,)."""
        return self.probabilities.amax(dim=1)

    @cached_property
    def margin(self) -> Tensor:
        """Its greatest softmax probability less the second. Shape (N,)."""
        first, second = self.probabilities.topk(2, dim=1).values.unbind(dim=1)
        return first - second

    def probability_of(self, labels: Tensor) -> Tensor:
        """Softmax probability of one label an image. Shape (N,)."""
        return self.probabilities.gather(1, labels.unsqueeze(1)).squeeze(1)

    def clean_at(self, labels: Tensor) -> Tensor:
        """p_clean of one label an image. Shape (N,)."""
        return self.clean.gather(1, labels.unsqueeze(1)).squeeze(1)


@dataclass(frozen=True)
class Lesson:
    """What a peer is taught: pseudo-labels, and which of them.

    Attributes:
        labels: Shape (N,).
        keep: Shape (N,), bool.
    """

    labels: Tensor
    keep: Tensor


Rule = Callable[[Opinion, Opinion], Lesson]


def both(own: Opinion, other: Opinion) -> Lesson:
    """The other's labels, where the peer itself and the other call them clean."""
    labels = other.labels
    return Lesson(labels, (own.clean_at(labels) > 0.5) & (other.clean_at(labels) > 0.5))


def peer(own: Opinion, other: Opinion) -> Lesson:
    """The other's labels, where the other calls them clean."""
    return Lesson(other.labels, other.clean_at(other.labels) > 0.5)


def agree(own: Opinion, other: Opinion) -> Lesson:
    """The labels that both predict."""
    return Lesson(other.labels, own.labels == other.labels)


def oneself(own: Opinion, other: Opinion) -> Lesson:
    """The peer's own labels, where it calls them clean itself."""
    return Lesson(own.labels, own.clean_at(own.labels) > 0.5)


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
    "agree": agree,
    "self": oneself,
    "none": none,
    "threshold-0.5": threshold(0.5),
    "threshold-0.95": threshold(0.95),
}


def keep_best(lesson: Lesson, score: Tensor, at_least: int, num_classes: int) -> Lesson:
    """Keep, besides what the rule keeps, the best few of each class, so that no class is left without images.

    Args:
        lesson: What the rule gave.
        score: The higher, the sooner kept. Shape (N,).
        at_least: How many of each class are kept at least, as far as there are so many.
        num_classes: C.

    Returns:
        The lesson, its `keep` widened. Ties go to the lower index.
    """
    keep = lesson.keep.clone()
    keep[best_of_each(score, lesson.labels, torch.full((num_classes,), at_least))[0]] = True
    return Lesson(lesson.labels, keep)


def log_frequency(labels: Tensor, num_classes: int) -> Tensor:
    """Log class frequencies of some labels, each class counted once more than it occurs. Shape (C,)."""
    counts = torch.bincount(labels, minlength=num_classes).double() + 1
    return (counts / counts.sum()).log().float()
