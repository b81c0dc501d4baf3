"""What a peer is trained on in an epoch: images, labels for the classification loss, labels for the dual loss."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .cleanliness import p_clean, separation
from .pseudo_labels import Lesson, keep_best, log_frequency
from .seeds import Seeds
from .tables import each_row


@dataclass(frozen=True)
class Targets:
    """Targets of the images that a peer is trained on.

    Attributes:
        ranks: Which images. Shape (n,).
        labels: For the classification loss. Shape (n,).
        keep: Where the classification loss counts. Shape (n,), bool.
        dual_labels: For the dual loss. Shape (n,).
        adjustment: Added to the logits in the classification loss. Shape (C,).
        separation: How well the judge of these labels tells them from other classes (AUC); NaN without a judge.
    """

    ranks: Tensor
    labels: Tensor
    keep: Tensor
    dual_labels: Tensor
    adjustment: Tensor
    separation: float = float("nan")

    @cached_property
    def _sorted(self) -> tuple[Tensor, Tensor]:
        order = torch.argsort(self.ranks)
        return order, self.ranks[order]

    def of(self, ranks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Labels, keep and dual labels of some of the images. Shape (m,) each."""
        order, ordered = self._sorted
        place = order[torch.searchsorted(ordered, ranks)]
        return self.labels[place], self.keep[place], self.dual_labels[place]


def seed_targets(seeds: Seeds, logits: Tensor, log_odds: Tensor, settings: Any, active: bool, at_least: int) -> Targets:
    """Targets of Phase I: seeds that the other peer calls clean; what it calls unclean is relabelled for the dual loss.

    The filter acts once warm-up is over and the judge's d separates the seeds' labels from other classes.

    Args:
        seeds: The peer's own seeds, on which the judge was not trained.
        logits: The judge's logits of them. Shape (n, C).
        log_odds: The judge's clean log-odds. Shape (n, C).
        settings: The keys of TRAINER.COFT.
        active: Whether warm-up is over.
        at_least: How many seeds of each class are kept in any case.
    """
    num_classes = logits.shape[1]
    labels, auc = seeds.labels, separation(log_odds, seeds.labels)
    lesson = Lesson(labels, torch.ones_like(labels, dtype=torch.bool))
    dual_labels = labels
    if active and auc > settings.PHASE1.MIN_AUC:
        at_label = log_odds.gather(1, labels.unsqueeze(1)).squeeze(1)
        told = each_row(lambda d, y: p_clean(d, settings.CLEAN_RULE).gather(1, y.unsqueeze(1)), log_odds, labels)
        clean = told.squeeze(1) > 0.5
        lesson = keep_best(Lesson(labels, clean), at_label, at_least, num_classes)
        dual_labels = torch.where(lesson.keep, labels, logits.argmax(dim=1))
    return Targets(seeds.ranks, labels, lesson.keep, dual_labels, torch.zeros(num_classes), auc)


def taught_targets(lesson: Lesson, num_classes: int) -> Targets:
    """Targets of Phase II: the kept pseudo-labels, with logits adjusted by their class frequencies."""
    ranks = torch.nonzero(lesson.keep).flatten()
    labels = lesson.labels[ranks]
    return Targets(ranks, labels, torch.ones_like(labels, dtype=torch.bool), labels, log_frequency(labels, num_classes))


def masked_cross_entropy(logits: Tensor, label: Tensor, keep: Tensor) -> Tensor:
    """Cross-entropy averaged over the kept samples; 0 where none is kept.

    Args:
        logits: Shape (n, C).
        label: Shape (n,).
        keep: Shape (n,), bool.

    Returns:
        A scalar.
    """
    each = F.cross_entropy(logits, label, reduction="none")
    return (each * keep).sum() / keep.sum().clamp_min(1)


def text_pull(positive: Tensor, anchor: Tensor) -> Tensor:
    """Mean squared distance of the positive text features from those of the template (KgCoOp, Yao et al. 2023).

    Args:
        positive: Unit-length text features of the learned prompt. Shape (C, embed_dim).
        anchor: Unit-length text features of the template. Shape (C, embed_dim).

    Returns:
        A scalar.
    """
    return (positive - anchor).square().sum(dim=-1).mean()
