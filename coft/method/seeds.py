"""Phase 0: zero-shot posteriors of the unlabeled images, and the most confident ones of each class as seeds."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from coft.method import tables
from coft.method.tables import chunks, each_row

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seeds:
    """Images with the label that a classifier is surest of: the zero-shot one, later the peers.

    Attributes:
        ranks: Ranks of the images in the pool. Shape (n,).
        labels: Their pseudo-labels. Shape (n,).
    """

    ranks: Tensor
    labels: Tensor

    @property
    def weight(self) -> Tensor:
        """How much each counts: all alike. Shape (n,)."""
        return torch.ones(len(self.labels))

    @property
    def balanced_weight(self) -> Tensor:
        """Likewise, for of each class there are as many, where there are enough. Shape (n,)."""
        return self.weight

    def every_other(self, start: int, num_classes: int) -> Seeds:
        """Take the seeds at even (start 0) or odd (start 1) places of each class, best first."""
        return self._places(slice(start, None, 2), num_classes)

    def best(self, per_class: int, num_classes: int) -> Seeds:
        """Take the first so many of each class."""
        return self._places(slice(per_class), num_classes)

    def _places(self, which: slice, num_classes: int) -> Seeds:
        index = torch.cat([torch.nonzero(self.labels == c).flatten()[which] for c in range(num_classes)])
        return Seeds(self.ranks[index], self.labels[index])


def correct_prior_(logits: Tensor, tau: float) -> Tensor:
    """Logit adjustment against classes that are hardly ever predicted: l_c - tau log mean_x p(c|x).

    Args:
        logits: Logits of all unlabeled images, corrected in place. Shape (N, C).
        tau: Strength; 0 leaves the logits as they are.

    Returns:
        The same tensor.
    """
    total = torch.zeros(logits.shape[1], dtype=torch.float64)
    for (rows,) in chunks(logits):
        total += rows.double().softmax(dim=1).sum(dim=0)
    offset = (tau * (total / len(logits)).clamp_min(1e-12).log()).to(logits.dtype)
    return logits.sub_(offset)


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


def growing_quotas(coverage: Tensor, first: int, progress: float) -> Tensor:
    """Seeds of each class in a round: from the first round's number, geometrically, to the filter's coverage.

    Args:
        coverage: Images of each class that the filter calls clean. Shape (C,).
        first: Seeds of each class in the first round.
        progress: 0 in the first round, 1 in the last.

    Returns:
        Whole numbers, at least `first`. Shape (C,).
    """
    growth = (coverage.double() / first).clamp_min(1)
    return (first * growth**progress).round().long()


def select_seeds(logits: Tensor, per_class: int | Tensor) -> tuple[Seeds, list[int]]:
    """Choose the top images of each class by log-odds, among those assigned to it.

    A class with too few is filled from images that have it second, best first, in one pass over all such images; an
    image serves one class. Ties go to the lower rank, which is an order of content.

    Args:
        logits: Logits of all unlabeled images, prior corrected or not. Shape (N, C).
        per_class: How many to choose of each class: one number, or shape (C,).

    Returns:
        The seeds, by class and best first within it, and the classes that stay short.
    """
    first, second = each_row(lambda rows: rows.topk(2, dim=1).indices, logits).unbind(dim=1)
    quotas = torch.as_tensor(per_class).expand(logits.shape[1])
    ranks, labels = best_of_each(each_row(odds_of, logits, first), first, quotas)
    short = quotas - torch.bincount(labels, minlength=len(quotas))
    left = torch.ones(len(logits), dtype=torch.bool)
    left[ranks] = False
    others = torch.nonzero(left).flatten()
    more, more_labels = best_of_each(each_row(odds_of, logits, second)[others], second[others], short)
    ranks, labels = torch.cat([ranks, others[more]]), torch.cat([labels, more_labels])
    order = torch.sort(labels, stable=True).indices
    missing = quotas - torch.bincount(labels, minlength=len(quotas))
    return Seeds(ranks[order], labels[order]), torch.nonzero(missing > 0).flatten().tolist()


def best_of_each(scores: Tensor, labels: Tensor, quotas: Tensor) -> tuple[Tensor, Tensor]:
    """Choose the best few of each class.

    Args:
        scores: The higher, the better; of equal ones the lower index. Shape (N,).
        labels: Shape (N,).
        quotas: How many of each class at most. Shape (C,).

    Returns:
        Indices, by class and best first within it, and their labels. Shape (n,) each.
    """
    order = torch.sort(scores, descending=True, stable=True).indices
    order = order[torch.sort(labels[order], stable=True).indices]
    labels = labels[order]
    ends = torch.bincount(labels, minlength=len(quotas)).cumsum(dim=0)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    chosen = torch.arange(len(order)) - starts[labels] < quotas[labels]
    return order[chosen], labels[chosen]


def cached(compute: Callable[[], Tensor], folder: Path | None, *key: str) -> Tensor:
    """Compute a tensor once: what an earlier run left under the same key is read back.

    Args:
        compute: Makes the tensor.
        folder: Where results are kept; None computes every time.
        *key: Everything that the result depends on.

    Returns:
        The tensor, the same bits from either source.
    """
    if folder is None:
        return compute()
    path = folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.pt"
    if path.is_file():
        log.info("Reading image features from %s", path)
        return torch.load(path, weights_only=True, mmap=path.stat().st_size > tables.IN_MEMORY)
    result = compute()
    folder.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    torch.save(result, draft)
    draft.replace(path)
    return result
