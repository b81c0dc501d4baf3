"""Experiments on CoFT: parts that know the truth, other doses of the filter, other learning rates.

Not methods: most of them read labels of the training images. They tell what a better filter, better seeds or better
labels could gain at most, and where the gain comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from coft.core.seeding import generator
from coft.core.settings import setting, share
from coft.core.table import Table
from coft.labelling.protocol import Engine, Observer, Tuning
from coft.labelling.pseudo_labels import Predictions, PseudoLabels
from coft.labelling.seeds import best_of_each, odds_of
from coft.method.coft import REFRESH, CoFT, SelectSeeds
from coft.method.coft_settings import CoFTSettings
from coft.method.filters import Filter

from .noise import NOISES, noisy_labels

KNOWN = ("nothing", "filter", "seeds", "labels")
RATES = ("cosine", "constant", "restart")


@dataclass(frozen=True)
class OracleSettings(CoFTSettings):
    """Settings of CoFT with an oracle."""

    knows: str = setting(
        "nothing",
        "nothing: CoFT; filter: which labels of Phase II are right; seeds, labels: the true ones, in Phase I or II",
        choices=KNOWN,
        phase2=True,
        in_phase1=("seeds",),
    )
    auroc: float = share(
        1.0, "how well a filter that knows tells right labels from wrong ones; 1: without a mistake", phase2=True
    )
    coverage: float = share(
        0.0, "labels of each class that count in Phase II, the surest by p_clean; 0: by the filter", phase2=True
    )
    noise: str = setting(
        "none",
        "labels of Phase II are true ones, but 2 of C are wrong: uniform, confusable, cluster or swapped",
        choices=NOISES,
        phase2=True,
    )
    refresh: int = setting(REFRESH, "epochs of Phase II between two labellings of all images", at_least=1, phase2=True)
    rate: str = setting(
        "cosine", "learning rate of Phase II: cosine, constant, a cosine a labelling", choices=RATES, phase2=True
    )


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

    def rule(peer: Predictions, partner: Predictions) -> PseudoLabels:
        return PseudoLabels.of_pool(partner.label, (partner.label == truth) ^ mistaken)

    return rule


def surest(coverage: float, num_classes: int) -> Filter:
    """A filter that keeps a share of the partner's labels of each class, the surest by the minimum of both p_clean."""

    def rule(peer: Predictions, partner: Predictions) -> PseudoLabels:
        label = partner.label
        quotas = (coverage * torch.bincount(label, minlength=num_classes)).ceil().long()
        score = torch.minimum(peer.p_clean(label), partner.p_clean(label))
        best, _ = best_of_each(score, label, quotas)
        return PseudoLabels.of_pool(label, torch.zeros(len(label)).index_fill(0, best, 1.0))

    return rule


def true_labels(truth: Tensor) -> Filter:
    """A filter that gives all true labels. `truth` has shape (N,)."""
    return lambda peer, partner: PseudoLabels.of_pool(truth)


def true_seeds(truth: Tensor) -> SelectSeeds:
    """A rule for the seeds: of each class the images whose true class has the highest odds. `truth` has shape (N,)."""

    def choose(logits: Table, quotas: Tensor, num_classes: int) -> PseudoLabels:
        return PseudoLabels.certain(*best_of_each(logits.map(odds_of, truth).all(), truth, quotas))

    return choose


class CoFTWithTruth(CoFT):
    """CoFT with a part that an experiment changes.

    Args:
        truth: Label of each image. Shape (N,).
        engine: What runs it.
        settings: Which experiment.
        observer: Sees what is done with pseudo-labels.
        **options: Those of `CoFT`.
    """

    settings: OracleSettings

    def __init__(
        self,
        truth: Tensor,
        engine: Engine,
        settings: OracleSettings,
        observer: Observer | None = None,
        **options: Any,
    ) -> None:
        self.truth = truth
        super().__init__(engine, settings, observer, **{**changes(settings, truth, engine.seed), **options})

    def tuning(self, phase: int) -> Tuning:
        """Phase II with another learning rate."""
        plain, phase2, rate = super().tuning(phase), self.settings.phase2, self.settings.rate
        if phase == 1 or rate == "cosine":
            return plain
        return replace(plain, rounds=-(-phase2.epochs // self.settings.refresh) if rate == "restart" else 0)

    def is_due(self, epoch: int) -> bool:
        """Labels are made anew as often as the settings say."""
        return (epoch - self.phase1_epochs) % self.settings.refresh == 0

    def filter_labels(self, predictions: Mapping[str, Predictions]) -> dict[str, PseudoLabels]:
        """Filter, in an experiment with noise, labels that are wrong in a known way."""
        if self.settings.noise != "none":
            predictions = {name: replace(each, label=self.noisy) for name, each in predictions.items()}
        return super().filter_labels(predictions)

    @cached_property
    def noisy(self) -> Tensor:
        """True labels, but for some. Shape (N,)."""
        features = self.engine.clip_features(self.settings.label_views).all()
        text = self.engine.clip.zero_shot_text().cpu()
        return noisy_labels(self.truth, self.settings.noise, features, text, self.engine.seed)


def changes(settings: OracleSettings, truth: Tensor, seed: int) -> dict[str, Any]:
    """What to give CoFT for an experiment.

    Args:
        settings: Which one.
        truth: Label of each image. Shape (N,).
        seed: Of the run.
    """
    options: dict[str, Any] = {}
    if settings.coverage:
        options["filter"] = surest(settings.coverage, int(truth.max()) + 1)
    if settings.knows == "filter":
        options["filter"] = right_labels(truth, settings.auroc, seed)
    if settings.knows == "seeds":
        options["select_seeds"] = true_seeds(truth)
    if settings.knows == "labels":
        options["filter"] = true_labels(truth)
    return options
