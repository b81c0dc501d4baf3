"""Seeds: the images of each class that a model is surest of."""

from __future__ import annotations

import torch
from torch import Tensor

from coft.core.table import Table

from .pseudo_labels import PseudoLabels

SEEDS_SHARE = 0.5  # seeds of both peers, at most so much of the images of a class


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


def quotas(label: Tensor, num_classes: int, share: float, at_most: int) -> Tensor:
    """Seeds of each class: no more than a share, rounded up, of the images that are given the class.

    A class that CLIP does not know is given few images. Filled up from others, its seeds would be wrong.

    Args:
        label: Likeliest class of each image. Shape (N,).
        num_classes: C.
        share: From 0 to 1.
        at_most: Bound of the result.

    Returns:
        Shape (C,).
    """
    return (share * torch.bincount(label, minlength=num_classes)).ceil().long().clamp_max(at_most)


def select_seeds(logits: Table, per_class: int | Tensor, num_classes: int) -> PseudoLabels:
    """Choose the top images of each class by log-odds, among those assigned to it.

    A class with too few is filled from images that have it second, best first, in one pass over all such images; an
    image serves one class. Ties go to the lower index, which is an order of content. A class may stay short.

    Args:
        logits: Of all unlabeled images, prior corrected or not. Shape (N, C).
        per_class: How many to choose of each class: one number, or shape (C,).
        num_classes: C.

    Returns:
        The seeds, by class and best first within it.
    """
    best = logits.map(_two_best).all()
    (first, second), odds = best[:, :2].long().unbind(dim=1), best[:, 2:]
    counts = torch.as_tensor(per_class).expand(num_classes)
    index, label = best_of_each(odds[:, 0], first, counts)
    short = counts - torch.bincount(label, minlength=num_classes)
    free = torch.ones(len(first), dtype=torch.bool).scatter(0, index, False)
    others = torch.nonzero(free).flatten()
    more, more_labels = best_of_each(odds[others, 1], second[others], short)
    index, label = torch.cat([index, others[more]]), torch.cat([label, more_labels])
    order = torch.sort(label, stable=True).indices
    return PseudoLabels.certain(index[order], label[order])


def _two_best(logits: Tensor) -> Tensor:
    """The two likeliest classes of each image, and the log-odds of both. Shape (n, 4), fp64."""
    classes = logits.topk(2, dim=1).indices
    odds = [odds_of(logits, label) for label in classes.unbind(dim=1)]
    return torch.cat([classes.double(), torch.stack(odds, dim=1)], dim=1)


def odds_of(logits: Tensor, label: Tensor) -> Tensor:
    """Log p(y|x) - log(1 - p(y|x)) of a label of each image, without rounding p to 1 on the way.

    Posteriors of a sharp classifier are 1 to the last bit for many images; their log-odds still rank them.

    Args:
        logits: Shape (n, C), C at least 2.
        label: y. Shape (n,).

    Returns:
        Log-odds in fp64. Shape (n,).
    """
    logits = logits.double()
    at_label = logits.gather(1, label.unsqueeze(1))
    others = logits.scatter(1, label.unsqueeze(1), float("-inf"))
    return at_label.squeeze(1) - others.logsumexp(dim=1)


def best_of_each(scores: Tensor, label: Tensor, most: Tensor) -> tuple[Tensor, Tensor]:
    """Choose the best few of each class.

    Args:
        scores: The higher, the better; of equal ones the lower index. Shape (n,).
        label: Shape (n,).
        most: How many of each class at most. Shape (C,).

    Returns:
        Indices, by class and best first within it, and their labels. Shape (m,) each.
    """
    order = torch.sort(scores, descending=True, stable=True).indices
    order = order[torch.sort(label[order], stable=True).indices]
    label = label[order]
    ends = torch.bincount(label, minlength=len(most)).cumsum(dim=0)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    chosen = torch.arange(len(order)) - starts[label] < most[label]
    return order[chosen], label[chosen]
