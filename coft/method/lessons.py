"""What a peer is trained on in an epoch: images, labels for the classification loss, labels for the dual loss."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.method.cleanliness import p_clean, separation
from coft.method.pseudo_labels import Lesson, harden, keep_best, log_frequency
from coft.method.seeds import Seeds
from coft.method.tables import each_row


@dataclass(frozen=True)
class Targets:
    """Targets of the images that a peer is trained on.

    Attributes:
        ranks: Which images. Shape (n,).
        labels: For the classification loss. Shape (n,).
        weight: How much each counts in the classification loss, from 0 to 1. Shape (n,).
        dual_labels: For the dual loss. Shape (n,).
        adjustment: Added to the logits in the classification loss. Shape (C,).
        separation: How well the judge of these labels tells them from other classes (AUC); NaN without a judge.
    """

    ranks: Tensor
    labels: Tensor
    weight: Tensor
    dual_labels: Tensor
    adjustment: Tensor
    separation: float = float("nan")

    @property
    def balanced_weight(self) -> Tensor:
        """The weights, over their class's frequency: classes count alike, but for very rare ones. Shape (n,)."""
        return self.weight.float() * torch.exp(-self.adjustment[self.labels])

    @cached_property
    def _sorted(self) -> tuple[Tensor, Tensor]:
        order = torch.argsort(self.ranks)
        return order, self.ranks[order]

    def of(self, ranks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Labels, weights and dual labels of some of the images. Shape (m,) each."""
        order, ordered = self._sorted
        place = order[torch.searchsorted(ordered, ranks)]
        return self.labels[place], self.weight[place], self.dual_labels[place]


def seed_targets(
    seeds: Seeds, guesses: Tensor, log_odds: Tensor, settings: Any, active: bool, at_least: int
) -> Targets:
    """Targets of Phase I: seeds, as clean as the other peer says; unclean ones are relabelled for the dual loss.

    The filter acts once warm-up is over and the judge's d separates the seeds' labels from other classes. Logits are
    adjusted by the class frequencies of what is left, as in Phase II: the filter leaves less of some classes.

    Args:
        seeds: The peer's own seeds, on which the judge was not trained.
        guesses: The judge's predictions of them. Shape (n,).
        log_odds: The judge's clean log-odds. Shape (n, C).
        settings: The keys of TRAINER.COFT.
        active: Whether warm-up is over.
        at_least: How many seeds of each class are kept in any case.
    """
    num_classes = log_odds.shape[1]
    labels, auc = seeds.labels, separation(log_odds, seeds.labels)
    lesson = Lesson(labels, torch.ones(len(labels)))
    dual_labels = labels
    if active and auc > settings.PHASE1.MIN_AUC:
        at_label = log_odds.gather(1, labels.unsqueeze(1)).squeeze(1)
        told = each_row(lambda d, y: p_clean(d, settings.CLEAN_RULE).gather(1, y.unsqueeze(1)), log_odds, labels)
        lesson = Lesson(labels, told.squeeze(1).float())
        lesson = keep_best(lesson if settings.SOFT else harden(lesson), at_label, at_least, num_classes)
        dual_labels = torch.where(lesson.keep, labels, guesses)
    adjustment = log_frequency(labels, lesson.weight, num_classes)
    return Targets(seeds.ranks, labels, lesson.weight, dual_labels, adjustment, auc)


def taught_targets(lesson: Lesson, num_classes: int) -> Targets:
    """Targets of Phase II: pseudo-labels that count at all, with logits adjusted by their class frequencies."""
    ranks = torch.nonzero(lesson.weight).flatten()
    labels, weight = lesson.labels[ranks], lesson.weight[ranks]
    return Targets(ranks, labels, weight, labels, log_frequency(labels, weight, num_classes))


def weighted_cross_entropy(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of the samples' cross-entropies, or their weighted sum where the weights are less than 1 together.

    So few weights of a batch cannot make a large step, and none of them none.

    Args:
        logits: Shape (n, C).
        label: Shape (n,).
        weight: From 0 to 1, or bool. Shape (n,).

    Returns:
        A scalar.
    """
    each = F.cross_entropy(logits, label, reduction="none")
    return (each * weight).sum() / weight.sum().clamp_min(1)


def text_pull(positive: Tensor, anchor: Tensor) -> Tensor:
    """Mean squared distance of the positive text features from those of the template (KgCoOp, Yao et al. 2023).

    Args:
        positive: Unit-length text features of the learned prompt. Shape (C, embed_dim).
        anchor: Unit-length text features of the template. Shape (C, embed_dim).

    Returns:
        A scalar.
    """
    return (positive - anchor).square().sum(dim=-1).mean()
