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

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seeds:
    """Images with the label that the zero-shot classifier is surest of.

    Attributes:
        ranks: Ranks of the images in the pool. Shape (n,).
        labels: Their pseudo-labels. Shape (n,).
    """

    ranks: Tensor
    labels: Tensor

    def every_other(self, start: int, num_classes: int) -> Seeds:
        """Take the seeds at even (start 0) or odd (start 1) places of each class, best first."""
        picked = [torch.nonzero(self.labels == c).flatten()[start::2] for c in range(num_classes)]
        index = torch.cat(picked)
        return Seeds(self.ranks[index], self.labels[index])


def correct_prior(logits: Tensor, tau: float) -> Tensor:
    """Logit adjustment against classes that are hardly ever predicted: l_c - tau log mean_x p(c|x).

    Args:
        logits: Logits of all unlabeled images. Shape (N, C).
        tau: Strength; 0 leaves the logits as they are.

    Returns:
        Corrected logits. Shape (N, C).
    """
    prior = logits.double().softmax(dim=1).mean(dim=0)
    return logits - (tau * prior.clamp_min(1e-12).log()).to(logits.dtype)


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
    num_classes = logits.shape[1]
    first, second = logits.topk(2, dim=1).indices.unbind(dim=1)
    odds_first, odds_second = odds_of(logits, first), odds_of(logits, second)
    chosen: list[list[int]] = [[] for _ in range(num_classes)]
    quotas = torch.as_tensor(per_class).expand(num_classes).tolist()
    taken: set[int] = set()
    for rank in best_first(odds_first):
        label = int(first[rank])
        _take(chosen[label], taken, rank, quotas[label])
    for rank in best_first(odds_second):
        if rank not in taken:
            label = int(second[rank])
            _take(chosen[label], taken, rank, quotas[label])
    ranks = [rank for members in chosen for rank in members]
    labels = [c for c, members in enumerate(chosen) for _ in members]
    short = [c for c, members in enumerate(chosen) if len(members) < quotas[c]]
    return Seeds(torch.tensor(ranks), torch.tensor(labels)), short


def best_first(scores: Tensor) -> list[int]:
    """Indices by falling score; equal scores in order of index."""
    return torch.sort(scores, descending=True, stable=True).indices.tolist()


def _take(members: list[int], taken: set[int], rank: int, limit: int) -> None:
    if len(members) < limit:
        members.append(rank)
        taken.add(rank)


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
        return torch.load(path, weights_only=True)
    result = compute()
    folder.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    torch.save(result, draft)
    draft.replace(path)
    return result
