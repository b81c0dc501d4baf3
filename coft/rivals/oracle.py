"""Experiments on CoFT: parts that know the truth, other doses of the filter, other learning rates.

Not methods: most of them read labels of the training images. They tell what a better filter, better seeds or better
labels could gain at most, and where the gain comes from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LambdaLR, LRScheduler

from coft.core.seeding import generator
from coft.core.settings import setting, share
from coft.core.world import ALONE, World
from coft.labelling.pseudo_labels import Predictions, PseudoLabels, best_of_each, odds_of
from coft.method.coft_settings import CoFTSettings
from coft.method.filters import Filter
from coft.method.optimizers import Schedule, cosine

from .noise import NOISES

KNOWN = ("nothing", "filter", "seeds", "labels")
RATES = ("cosine", "constant", "restart")


@dataclass(frozen=True)
class OracleSettings(CoFTSettings):
    """Settings of CoFT with an oracle."""

    knows: str = setting(
        "nothing",
        "nothing: CoFT; filter: which labels of Phase II are right; seeds, labels: the true ones, in Phase I or II",
        choices=KNOWN,
    )
    auroc: float = share(1.0, "how well a filter that knows tells right labels from wrong ones; 1: without a mistake")
    coverage: float = share(0.0, "labels of each class that count in Phase II, the surest by p_clean; 0: by the filter")
    noise: str = setting(
        "none",
        "labels of Phase II are true ones, but 2 of C are wrong: uniform, confusable, cluster or swapped",
        choices=NOISES,
    )
    rate: str = setting("cosine", "learning rate of Phase II: cosine, constant, a cosine a labelling", choices=RATES)


def right_labels(truth: Tensor, auroc: float, seed: int) -> Filter:
    """A filter that keeps the partner's labels that are right, or takes them to be.

    It is mistaken about the same images whenever it is asked. Of a bit that is wrong with probability q, for right and
    wrong labels alike, the AUROC is 1 - q.

    Args:
        truth: Label of each image. Shape (N,).
        auroc: 1 - q.
        seed: Of the mistakes.
    """
    mistaken = torch.rand(len(truth), generator=generator(seed, "mistakes")) >= auroc

    def rule(own: Predictions, partner: Predictions) -> PseudoLabels:
        return PseudoLabels.of_pool(partner.label, (partner.label == truth) ^ mistaken)

    return rule


def surest(coverage: float) -> Filter:
    """A filter that keeps a share of the partner's labels of each class, the surest by the minimum of both p_clean."""

    def rule(own: Predictions, partner: Predictions) -> PseudoLabels:
        label, classes = partner.label, own.clean.shape[1]
        quotas = (coverage * torch.bincount(label, minlength=classes)).ceil().long()
        score = torch.minimum(own.p_clean(label), partner.p_clean(label))
        keep = torch.zeros(len(label), dtype=torch.bool)
        keep[best_of_each(score, label, quotas)[0]] = True
        return PseudoLabels.of_pool(label, keep)

    return rule


def true_labels(truth: Tensor) -> Filter:
    """A filter that gives all true labels. `truth` has shape (N,)."""
    return lambda own, partner: PseudoLabels.of_pool(truth)


def true_seeds(truth: Tensor, world: World = ALONE) -> Callable[[Tensor, int | Tensor], PseudoLabels]:
    """A rule for the seeds: of each class the images whose true class has the highest odds. `truth` has shape (N,)."""

    def choose(logits: Tensor, per_class: int | Tensor) -> PseudoLabels:
        quotas = torch.as_tensor(per_class).expand(logits.shape[1])
        odds = world.gather(odds_of(logits, truth[world.part(len(truth))]))
        return PseudoLabels.certain(*best_of_each(odds, truth, quotas))

    return choose


def schedule_of(rate: str, labellings: int) -> Schedule:
    """Schedule of Phase II.

    Args:
        rate: A name of `RATES`.
        labellings: How often all images are labelled.
    """

    def constant(optimizer: Optimizer, steps: int) -> LRScheduler:
        return LambdaLR(optimizer, lambda step: 1.0)

    def restart(optimizer: Optimizer, steps: int) -> LRScheduler:
        return CosineAnnealingWarmRestarts(optimizer, T_0=max(1, round(steps / labellings)))

    return {"cosine": cosine, "constant": constant, "restart": restart}[rate]


def oracle(settings: OracleSettings, truth: Tensor, seed: int, world: World = ALONE) -> dict[str, Any]:
    """What to give CoFT for an experiment.

    Args:
        settings: Which one.
        truth: Label of each image. Shape (N,).
        seed: Of the run.
        world: Its processes.
    """
    phase2 = settings.phase2
    options: dict[str, Any] = {"schedule": schedule_of(settings.rate, -(-phase2.epochs // phase2.refresh))}
    if settings.coverage:
        options["filter"] = surest(settings.coverage)
    if settings.knows == "filter":
        options["filter"] = right_labels(truth, settings.auroc, seed)
    if settings.knows == "seeds":
        options["choose_seeds"] = true_seeds(truth, world)
    if settings.knows == "labels":
        options["filter"] = true_labels(truth)
    return options
