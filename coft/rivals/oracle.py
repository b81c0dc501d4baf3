"""What knows the truth: a filter and a rule for the seeds, to put in the place of CoFT's own.

Experiments, not methods: they read labels of the training images. They tell what a better filter, better seeds or
better labels could gain at most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from coft.method.coft import CoFTSettings
from coft.method.filters import Filter, SeedFilter
from coft.method.pseudo_labels import Predictions, PseudoLabels, best_of_each, odds_of
from coft.method.settings import setting

KNOWN = ("nothing", "filter", "seeds", "labels")


@dataclass(frozen=True)
class OracleSettings(CoFTSettings):
    """Settings of CoFT with an oracle."""

    knows: str = setting(
        "nothing",
        "nothing: CoFT; filter: which pseudo-labels are right; seeds, labels: the true ones, in Phase I or II",
        choices=KNOWN,
    )


def right_labels(truth: Tensor) -> Filter:
    """A filter that keeps the partner's labels that are right. `truth` has shape (N,)."""

    def rule(own: Predictions, partner: Predictions) -> PseudoLabels:
        return PseudoLabels.of_pool(partner.label, partner.label == truth)

    return rule


def true_labels(truth: Tensor) -> Filter:
    """A filter that gives all true labels. `truth` has shape (N,)."""
    return lambda own, partner: PseudoLabels.of_pool(truth)


def right_seeds(truth: Tensor) -> SeedFilter:
    """A filter of Phase I that keeps the seeds that are right, from the beginning. `truth` has shape (N,)."""

    def weigh(seeds: PseudoLabels, log_odds: Tensor, ready: bool) -> PseudoLabels:
        return PseudoLabels(seeds.index, seeds.label, (seeds.label == truth[seeds.index]).float())

    return weigh


def true_seeds(truth: Tensor) -> Callable[[Tensor, int | Tensor], PseudoLabels]:
    """A rule for the seeds: of each class the images whose true class has the highest odds. `truth` has shape (N,)."""

    def choose(logits: Tensor, per_class: int | Tensor) -> PseudoLabels:
        quotas = torch.as_tensor(per_class).expand(logits.shape[1])
        return PseudoLabels.certain(*best_of_each(odds_of(logits, truth), truth, quotas))

    return choose


def oracle(knows: str, truth: Tensor) -> dict[str, Any]:
    """What to give CoFT so that it knows a part of the truth.

    Args:
        knows: A name of `KNOWN`.
        truth: Label of each image. Shape (N,).
    """
    if knows == "filter":
        return {"filter": right_labels(truth), "seed_filter": right_seeds(truth)}
    if knows == "seeds":
        return {"choose_seeds": true_seeds(truth)}
    return {"filter": true_labels(truth)} if knows == "labels" else {}
