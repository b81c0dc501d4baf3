"""CoFT told a part of the truth: what a better filter, better seeds or better labels could gain at most.

An experiment, not a method: it reads labels of the training images.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from coft.method.lessons import Targets
from coft.method.pseudo_labels import Lesson, Opinion, log_frequency
from coft.method.seeds import Seeds, best_of_each, odds_of
from coft.runtime.errors import UserError, did_you_mean
from dassl.engine import TRAINER_REGISTRY

from .coft import CoFT
from .parts.coft_keys import coft_keys

KNOWN = ("nothing", "filter", "seeds", "labels")


def add_config(cfg: Any) -> None:
    """Add the keys: CoFT's, and what the oracle tells."""
    own = cfg.TRAINER.COFTORACLE = coft_keys()
    own.KNOWS = "nothing"  # nothing: CoFT; filter: which pseudo-labels are right; seeds, labels: see CoFTOracle


@TRAINER_REGISTRY.register()
class CoFTOracle(CoFT):
    """CoFT with an oracle in one place, which KNOWS names.

    filter: in both phases those pseudo-labels are kept that are right (negative vectors are fitted to all seeds).
    seeds: Phase I has true labels, of the images of each class that zero-shot CLIP finds likeliest to be of it; and so
        has what judges in Phase II, of those that the peers find likeliest.
    labels: Phase II is taught all true labels.
    """

    settings = "COFTORACLE"
    label_free = False
    learns_from_labels = True

    def check_cfg(self, cfg: Any) -> None:
        """Refuse what no oracle knows."""
        super().check_cfg(cfg)
        knows = cfg.TRAINER.COFTORACLE.KNOWS
        if knows not in KNOWN:
            raise UserError(f"TRAINER.COFTORACLE.KNOWS is {knows!r}; {did_you_mean(knows, KNOWN)}")

    def build_data_loader(self) -> None:
        """Take the images as CoFT does, and their labels.

        Raises:
            UserError: If one is not known.
        """
        super().build_data_loader()
        self.take_unlabeled()
        train = self.training_images
        self.truth = torch.tensor([train[i].label for i in self.pool.order.tolist()])
        if (self.truth < 0).any():
            raise UserError("CoFTOracle needs the label of every training image; use CoFT, which needs none")

    @property
    def labels_used(self) -> int:
        """Number of images whose labels the oracle reads."""
        return 0 if self.own.KNOWS == "nothing" else len(self.truth)

    def pick_seeds(self, logits: Tensor, per_class: int | Tensor) -> Seeds:
        """With KNOWS seeds: of each class the images whose true class has the highest odds."""
        if self.own.KNOWS != "seeds":
            return super().pick_seeds(logits, per_class)
        quotas = torch.as_tensor(per_class).expand(logits.shape[1])
        return Seeds(*best_of_each(odds_of(logits, self.truth), self.truth, quotas))

    def judge_seeds(self, name: str, logits: Tensor, odds: Tensor, warm: bool) -> Targets:
        """With KNOWS filter: from the beginning, keep the seeds that are right."""
        told = super().judge_seeds(name, logits, odds, warm)
        if self.own.KNOWS != "filter":
            return told
        right = told.labels == self.truth[told.ranks]
        dual_labels = torch.where(right, told.labels, self.guesses(logits, odds))
        adjustment = log_frequency(told.labels, right, odds.shape[1])
        return replace(told, weight=right, dual_labels=dual_labels, adjustment=adjustment)

    def filtered(self, own: Opinion, other: Opinion) -> Lesson:
        """With KNOWS filter, the partner's labels that are right; with KNOWS labels, all true ones."""
        if self.own.KNOWS == "filter":
            return Lesson(other.labels, other.labels == self.truth)
        if self.own.KNOWS == "labels":
            return Lesson(self.truth, torch.ones_like(self.truth, dtype=torch.bool))
        return super().filtered(own, other)
