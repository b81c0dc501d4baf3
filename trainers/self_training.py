"""Self-training: full fine-tuning on the model's own labels of all unlabeled images, with no filter."""

from __future__ import annotations

import logging
from typing import Any

import torch

from coft.method.labelling import classify_pool
from coft.method.pseudo_labels import Lesson
from coft.method.seeds import correct_prior_
from coft.runtime.ranges import check_not_negative
from dassl.engine import TRAINER_REGISTRY

from .parts.full_tuning import FullTuning, tuning_keys

log = logging.getLogger(__name__)


def add_config(cfg: Any) -> None:
    """Add the keys of self-training."""
    own = cfg.TRAINER.SELFTRAINING = tuning_keys(cfg, "REFRESH")
    own.PRIOR_TAU = 0.5  # correction against classes that are hardly ever predicted


@TRAINER_REGISTRY.register()
class SelfTraining(FullTuning):
    """Models that label all images with their moving average every REFRESH epochs; the zero-shot model labels first.

    Images, views, optimizer and steps are those of CoFT's Phase II: what is missing is Phase I, the filter, the
    other peer, and labels of several views.
    """

    settings = "SELFTRAINING"
    label_free = True

    def check_cfg(self, cfg: Any) -> None:
        """Refuse a REFRESH below 0."""
        super().check_cfg(cfg)
        check_not_negative(cfg, f"TRAINER.{self.settings}.REFRESH")

    def teach(self) -> None:
        """Let each model label all images for itself."""
        teachers = {name: peer.teacher().eval() for name, peer in self.peers.items()}
        with self.autocast():
            views = classify_pool(teachers, self.pool, self.cfg, self.device, side_by_side=self.side_by_side)
        for name, (logits, _) in views.items():
            labels = correct_prior_(logits, self.own.PRIOR_TAU).argmax(dim=1)
            self.peers[name].lesson = Lesson(labels, torch.ones_like(labels, dtype=torch.bool))
            right = self.diagnostics.accuracy(torch.arange(len(labels)), labels)
            log.info("%s: %.1f %% of its pseudo-labels are right", name, 100 * right)
