"""Seeds: the images of each class with the highest log-odds."""

from __future__ import annotations

import torch
from torch import Tensor

from coft.core.table import Table

from .pseudo_labels import PseudoLabels

SEEDS_SHARE = 0.5  # maximum share of a class's images that are seeds, of both peers together


def seed_quota(num_images: int, num_classes: int, at_most: int, share: float) -> int:
    """Return the number of seeds per class and peer: a share of the average class size N / C, halved for two peers.

    With few images per class, a fixed number would take them all, sure or not.

    Args:
        num_images: N.
        num_classes: C.
        at_most: Upper bound of the result.
        share: Share of N / C that the seeds of both peers together may take.

    Returns:
        A number from 1 to `at_most`.
    """
    return max(1, min(at_most, round(share * num_images / (2 * num_classes))))


def quotas(label: Tensor, num_classes: int, share: float, at_most: int) -> Tensor:
    """Return the number of seeds of each class: at most a share, rounded up, of the images labelled with the class.

    CLIP labels few images with a class that it does not know. Filled up from other classes, its seeds would be wrong.

    Args:
        label: Likeliest class of each image. Shape (N,).
        num_classes: C.
        share: Share of the images, from 0 to 1.
        at_most: Upper bound of each number.

    Returns:
        Numbers of seeds. Shape (C,).
    """
    return (share * torch.bincount(label, minlength=num_classes)).ceil().long().clamp_max(at_most)


def select_seeds(logits: Table, per_class: int | Tensor, num_classes: int) -> PseudoLabels:
    """Choose the top images of each class by log-odds, among those whose likeliest class it is.

    A class with too few images is filled, in one pass, from unchosen images whose second class it is, best first. An
    image is a seed of one class only. Ties go to the lower index, which depends on content alone. A class may stay
    short.

    Args:
        logits: Logits of all unlabeled images, prior corrected or not. Shape (N, C).
        per_class: Number of seeds of each class: one number, or shape (C,).
        num_classes: C.

    Returns:
        The seeds, class by class, and best first within a class.
    """
    best = logits.map(_two_best).all()
    (first, second), odds = best[:, :2].long().unbind(dim=1), best[:, 2:]
    counts = torch.as_tensor(per_class).expand(num_classes)
    index, label = top_per_class(odds[:, 0], first, counts)
    short = counts - torch.bincount(label, minlength=num_classes)
    free = torch.ones(len(first), dtype=torch.bool).scatter(0, index, False)
    others = torch.nonzero(free).flatten()
    more, more_labels = top_per_class(odds[others, 1], second[others], short)
    index, label = torch.cat([index, others[more]]), torch.cat([label, more_labels])
    order = torch.sort(label, stable=True).indices
    return PseudoLabels.unweighted(index[order], label[order])


def _two_best(logits: Tensor) -> Tensor:
    """Return the two likeliest classes of each image, and the log-odds of both. Shape (n, 4), fp64."""
    classes = logits.topk(2, dim=1).indices
    odds = [label_log_odds(logits, label) for label in classes.unbind(dim=1)]
    return torch.cat([classes.double(), torch.stack(odds, dim=1)], dim=1)


def label_log_odds(logits: Tensor, label: Tensor) -> Tensor:
    """Compute log p(y|x) - log(1 - p(y|x)) of a label of each image, without rounding p to 1.

    The posteriors of a sharp classifier round to 1 for many images, but their log-odds still rank them.

    Args:
        logits: Logits, with C at least 2. Shape (n, C).
        label: Label y of each image. Shape (n,).

    Returns:
        Log-odds in fp64. Shape (n,).
    """
    logits = logits.double()
    at_label = logits.gather(1, label.unsqueeze(1))
    others = logits.scatter(1, label.unsqueeze(1), float("-inf"))
    return at_label.squeeze(1) - others.logsumexp(dim=1)


def top_per_class(scores: Tensor, label: Tensor, most: Tensor) -> tuple[Tensor, Tensor]:
    """Choose the images with the highest scores in each class.

    Args:
        scores: Score of each image; ties go to the lower index. Shape (n,).
        label: Class of each image. Shape (n,).
        most: Maximum number of images of each class. Shape (C,).

    Returns:
        Indices, class by class and best first within a class, and their labels. Shape (m,) each.
    """
    order = torch.sort(scores, descending=True, stable=True).indices
    order = order[torch.sort(label[order], stable=True).indices]
    label = label[order]
    ends = torch.bincount(label, minlength=len(most)).cumsum(dim=0)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    chosen = torch.arange(len(order)) - starts[label] < most[label]
    return order[chosen], label[chosen]
