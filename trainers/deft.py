"""DeFT (Wei et al. 2024), made for noisy labels, fed with zero-shot labels (our reconstruction)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from coft.method.peer import Classifier
from coft.method.pseudo_labels import Opinion
from coft.method.seeds import Seeds, correct_prior_
from coft.runtime.errors import UserError
from dassl.engine import TRAINER_REGISTRY

from .coft import CoFT
from .parts.coft_keys import coft_keys
from .parts.peer_trainer import PEERS

ALL = 1_000_000  # more than there are images


def add_config(cfg: Any) -> None:
    """Add DeFT's keys: CoFT's, with other values."""
    own = cfg.TRAINER.DEFT = coft_keys()
    own.N_CTX = 16
    own.SEEDS_PER_CLASS, own.SEEDS_SHARE = ALL, 2.0  # Phase I trains on all images
    own.PRIOR_TAU, own.LABEL_VIEWS = 0.0, 1
    own.CLEAN_RULE, own.COMPLEMENTS, own.NEGATIVE_START = "raw", "drawn", "positive"
    own.CLASS_NEGATIVE, own.CLASSIFY = False, "positive"
    own.FILTER, own.SOFT = "self", False
    own.NEG_GRAD_TO_VISUAL = False
    own.PHASE2.RESTART, own.PHASE2.WISE = True, 1.0
    own.PHASE2.REFRESH = ALL  # the model of Phase I selects once


@TRAINER_REGISTRY.register()
class DeFT(CoFT):
    """CoFT without the other peer, on given labels: two runs of DeFT, whose probabilities are averaged.

    Every image has the zero-shot classifier's label. In Phase I each model tunes prompts and visual module on those
    that it calls clean itself; in Phase II pre-trained weights are fine-tuned on those that its Phase I calls clean.

    Unlike the published method: warm-up is counted in steps (PHASE1.WARMUP_STEPS); labels that a model calls unclean
    are replaced by its own predictions in the dual loss, logits are adjusted by class frequencies, the surest few
    labels of each class are kept (MIN_KEPT), and nothing is filtered before d tells labels from other classes
    (PHASE1.MIN_AUC), as in CoFT; in Phase II the classifier starts from the tuned prompts, and a moving average of the
    weights is tested.
    """

    settings = "DEFT"
    partners: Mapping[str, str] = {name: name for name in PEERS}

    def check_cfg(self, cfg: Any) -> None:
        """Refuse negative vectors of each class's own: those of Phase II would be fitted, those of Phase I judge."""
        super().check_cfg(cfg)
        if cfg.TRAINER.DEFT.CLASS_NEGATIVE:
            raise UserError("TRAINER.DEFT.CLASS_NEGATIVE is True; DeFT has one negative prompt: leave it False")

    def share_seeds(self, logits: Tensor, per_class: int | Tensor) -> dict[str, float]:
        """Give each model all images with the labels that some logits (N, C) give them.

        Returns:
            Numbers for the log.
        """
        labels = correct_prior_(logits, self.own.PRIOR_TAU).argmax(dim=1)
        everything = torch.arange(len(labels))
        for peer in self.peers.values():
            peer.seeds = Seeds(everything, labels)
        right = self.diagnostics.accuracy(everything, labels)
        return {"kept": len(labels), "of": len(labels), "precision": right, "pool_accuracy": right}

    @torch.no_grad()
    def teachers(self) -> dict[str, Classifier]:
        """The models of Phase I, in Phase II as well."""
        return {name: peer.prompted() for name, peer in self.peers.items()}

    def opinions_of(self, views: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Opinion]:
        """What each model thinks of the given labels."""
        formed = super().opinions_of(views)
        return {name: replace(told, labels=self.peers[name].seeds.labels) for name, told in formed.items()}
