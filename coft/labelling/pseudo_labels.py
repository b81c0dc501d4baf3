"""Pseudo-labels: one type from the seeds to the loss, and how the surest of each class are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from coft.core.tables import chunks, each_row
from coft.core.world import ALONE, World


@dataclass(frozen=True)
class PseudoLabels:
    """Labels that a model is trained on.

    Attributes:
        index: Which images of the pool. Shape (n,).
        label: Shape (n,).
        weight: How much each counts in the classification loss, from 0 to 1. Shape (n,).
    """

    index: Tensor
    label: Tensor
    weight: Tensor

    @classmethod
    def none(cls) -> PseudoLabels:
        """No label of no image."""
        return cls.certain(torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long))

    @classmethod
    def certain(cls, index: Tensor, label: Tensor) -> PseudoLabels:
        """Labels that all count in full."""
        return cls(index, label, torch.ones(len(label)))

    @classmethod
    def of_pool(cls, label: Tensor, weight: Tensor | None = None) -> PseudoLabels:
        """A label of every image of the pool, which counts in full unless there are weights (bool or float)."""
        index = torch.arange(len(label))
        if weight is None:
            return cls.certain(index, label)
        return cls(index, label, weight.float() if weight.dtype is torch.bool else weight)

    @property
    def keep(self) -> Tensor:
        """Which labels are more likely right than not. Shape (n,), bool."""
        return self.weight > 0.5

    def weighted(self) -> PseudoLabels:
        """Those whose weight is above 0."""
        return self.at(torch.nonzero(self.weight).flatten())

    def at(self, position: Tensor) -> PseudoLabels:
        """Those at some positions, in that order."""
        return PseudoLabels(self.index[position], self.label[position], self.weight[position])

    def of(self, index: Tensor) -> PseudoLabels:
        """Those of some of the images, in that order."""
        order, ordered = self._sorted
        return self.at(order[torch.searchsorted(ordered, index)])

    @cached_property
    def _sorted(self) -> tuple[Tensor, Tensor]:
        order = torch.argsort(self.index)
        return order, self.index[order]

    def of_classes(self, which: slice, num_classes: int) -> PseudoLabels:
        """Those at some places of each class, in the order in which they are."""
        places = [torch.nonzero(self.label == c).flatten()[which] for c in range(num_classes)]
        return self.at(torch.cat(places))

    def log_frequency(self, num_classes: int) -> Tensor:
        """Log class frequencies of the weighted labels, each class counted once more than it occurs. Shape (C,)."""
        counts = torch.ones(num_classes, dtype=torch.float64).index_add_(0, self.label, self.weight.double())
        return (counts / counts.sum()).log().float()


@dataclass(frozen=True)
class Predictions:
    """What a model predicts for every image of the pool.

    Attributes:
        label: Its labels. Shape (N,).
        probability: Softmax probability of every class, by the positive vectors alone. Shape (N, C).
        clean: p_clean of every class. Shape (N, C).
        world: Its ranks have a part of the rows of both tables each. Labels, and what is asked of them, are of all
            images.
    """

    label: Tensor
    probability: Tensor
    clean: Tensor
    world: World = ALONE

    @cached_property
    def confidence(self) -> Tensor:
        """Softmax probability of its labels. Shape (N,)."""
        return self.probability_of(self.label)

    @cached_property
    def margin(self) -> Tensor:
        """Softmax probability of its labels less the greatest of another class. Shape (N,)."""
        first, second = self.world.gather(self.probability.topk(2, dim=1).values).unbind(dim=1)
        return self.confidence - torch.where(self.confidence == first, second, first)

    def probability_of(self, label: Tensor) -> Tensor:
        """Softmax probability of one label an image. Shape (N,)."""
        return self._at(self.probability, label)

    def p_clean(self, label: Tensor) -> Tensor:
        """p_clean of one label an image. Shape (N,)."""
        return self._at(self.clean, label)

    def _at(self, table: Tensor, label: Tensor) -> Tensor:
        own = label[self.world.part(len(label))]
        return self.world.gather(table.gather(1, own.unsqueeze(1)).squeeze(1))


def correct_prior_(logits: Tensor, tau: float, world: World = ALONE) -> Tensor:
    """Logit adjustment against classes that are hardly ever predicted: l_c - tau log mean_x p(c|x).

    Args:
        logits: Logits of all unlabeled images, corrected in place. Shape (N, C).
        tau: Strength; 0 leaves the logits as they are.
        world: Its ranks have a part of the rows each.

    Returns:
        The same tensor.
    """
    return logits.sub_(prior_offset(logits, tau, world))


def prior_offset(logits: Tensor, tau: float, world: World = ALONE) -> Tensor:
    """What `correct_prior_` takes away: tau log mean_x p(c|x). Shape (C,), of the type of the logits."""
    total = torch.zeros(logits.shape[1], dtype=torch.float64)
    for (rows,) in chunks(logits):
        total += rows.double().softmax(dim=1).sum(dim=0)
    mean = world.sum(total) / world.total(len(logits))
    return (tau * mean.clamp_min(1e-12).log()).to(logits.dtype)


def odds_of(logits: Tensor, label: Tensor) -> Tensor:
    """Log p(y|x) - log(1 - p(y|x)) of a label of each image, without rounding p to 1 on the way.

    Posteriors of a sharp classifier are 1 to the last bit for many images; their log-odds still rank them.

    Args:
        logits: Shape (N, C), C at least 2.
        label: y. Shape (N,).

    Returns:
        Log-odds in fp64. Shape (N,).
    """
    logits = logits.double()
    at_label = logits.gather(1, label.unsqueeze(1))
    others = logits.scatter(1, label.unsqueeze(1), float("-inf"))
    return at_label.squeeze(1) - others.logsumexp(dim=1)


def seed_quota(num_images: int, num_classes: int, at_most: int, share: float) -> int:
    """Seeds of each class for each of two peers: a share of the images that a class can be expected to have.

    With few images a class, a fixed number would take them all, sure or not.

    Args:
        num_images: N.
        num_classes: C.
        at_most: Bound of the result.
        share: Share of N / C that the seeds of both peers together may take.

    Returns:
        A number from 1 to `at_most`.
    """
    return max(1, min(at_most, round(share * num_images / (2 * num_classes))))


def given_quotas(logits: Tensor, share: float, at_most: int, world: World = ALONE) -> Tensor:
    """Seeds of each class: no more than a share, rounded up, of the images that are given the class.

    A class that CLIP does not know is given few images. Filled up from others, its seeds would be wrong.

    Args:
        logits: Of all images. Shape (N, C).
        share: From 0 to 1.
        at_most: Bound of the result.
        world: Its ranks have a part of the rows each.

    Returns:
        Shape (C,).
    """
    given = torch.bincount(each_row(lambda rows: rows.argmax(dim=1), logits), minlength=logits.shape[1])
    given = world.sum(given)
    return (share * given).ceil().long().clamp_max(at_most)


def select_seeds(logits: Tensor, per_class: int | Tensor, world: World = ALONE) -> PseudoLabels:
    """Choose the top images of each class by log-odds, among those assigned to it.

    A class with too few is filled from images that have it second, best first, in one pass over all such images; an
    image serves one class. Ties go to the lower index, which is an order of content. A class may stay short.

    Args:
        logits: Logits of all unlabeled images, prior corrected or not. Shape (N, C).
        per_class: How many to choose of each class: one number, or shape (C,).
        world: Its ranks have a part of the rows each.

    Returns:
        The seeds, by class and best first within it.
    """
    classes = each_row(lambda rows: rows.topk(2, dim=1).indices, logits)
    scores = [world.gather(each_row(odds_of, logits, label)) for label in classes.unbind(dim=1)]
    first, second = world.gather(classes).unbind(dim=1)
    quotas = torch.as_tensor(per_class).expand(logits.shape[1])
    index, label = best_of_each(scores[0], first, quotas)
    short = quotas - torch.bincount(label, minlength=len(quotas))
    left = torch.ones(len(first), dtype=torch.bool)
    left[index] = False
    others = torch.nonzero(left).flatten()
    more, more_labels = best_of_each(scores[1][others], second[others], short)
    index, label = torch.cat([index, others[more]]), torch.cat([label, more_labels])
    order = torch.sort(label, stable=True).indices
    return PseudoLabels.certain(index[order], label[order])


def best_of_each(scores: Tensor, label: Tensor, quotas: Tensor) -> tuple[Tensor, Tensor]:
    """Choose the best few of each class.

    Args:
        scores: The higher, the better; of equal ones the lower index. Shape (N,).
        label: Shape (N,).
        quotas: How many of each class at most. Shape (C,).

    Returns:
        Indices, by class and best first within it, and their labels. Shape (n,) each.
    """
    order = torch.sort(scores, descending=True, stable=True).indices
    order = order[torch.sort(label[order], stable=True).indices]
    label = label[order]
    ends = torch.bincount(label, minlength=len(quotas)).cumsum(dim=0)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    chosen = torch.arange(len(order)) - starts[label] < quotas[label]
    return order[chosen], label[chosen]
