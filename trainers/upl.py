"""UPL: CoOp's prompt, learned from the zero-shot classifier's surest images of each class (Huang et al. 2022)."""

from __future__ import annotations

import logging
import math
from typing import Any

from torch import Tensor
from yacs.config import CfgNode

from coft.backbones.descriptions import described_classes
from coft.backbones.prompts import template_features
from coft.images.unlabeled import peer_batches
from coft.method.labelling import zero_shot_logits
from coft.method.seeds import Seeds, select_seeds
from coft.runtime.ranges import check_positive
from dassl.engine import TRAINER_REGISTRY

from .coop import CoOp

log = logging.getLogger(__name__)


def add_config(cfg: Any) -> None:
    """Add UPL's keys: CoOp's, and the number of pseudo-labels of each class."""
    cfg.TRAINER.UPL = CfgNode()
    cfg.TRAINER.UPL.N_CTX = 16
    cfg.TRAINER.UPL.CSC = False
    cfg.TRAINER.UPL.CTX_INIT = ""
    cfg.TRAINER.UPL.PREC = "fp16"
    cfg.TRAINER.UPL.CLASS_TOKEN_POSITION = "end"
    cfg.TRAINER.UPL.SEEDS_PER_CLASS = 16
    cfg.TRAINER.UPL.ENSEMBLE = 1  # prompts learned independently, whose probabilities are averaged


@TRAINER_REGISTRY.register()
class UPL(CoOp):
    """Unsupervised prompt learning. No label is read: pseudo-labels come from the frozen CLIP.

    Members of an ensemble share the pseudo-labels; contexts, batches and augmentations are their own.

    Unlike the published method: one prompt unless ENSEMBLE says more, pseudo-labels of one CLIP (its UPL* takes them
    from several), and a class with too few of them is filled from images that have it second.
    """

    settings = "UPL"
    label_free = True

    def check_cfg(self, cfg: Any) -> None:
        """Refuse an ensemble of nothing, and no seeds."""
        super().check_cfg(cfg)
        section = f"TRAINER.{self.settings}"
        check_positive(cfg, f"{section}.ENSEMBLE")
        if "SEEDS_PER_CLASS" in cfg.TRAINER[self.settings]:
            check_positive(cfg, f"{section}.SEEDS_PER_CLASS")

    def build_model(self) -> None:
        """Build the prompt learners, and pseudo-label the most confident images of each class."""
        super().build_model()
        text = described_classes(self, self.templates[:1])
        if text is None:
            text = template_features(self.clip_model, self.classnames, self.templates[0])
        logits = zero_shot_logits(self.clip_model, text, self.pool, self.cfg, self.device)
        self.learn_from(select_seeds(logits, self.seeds_per_class)[0])

    @property
    def seeds_per_class(self) -> int:
        """Pseudo-labels of each class."""
        return int(self.cfg.TRAINER[self.settings].SEEDS_PER_CLASS)

    def learn_from(self, seeds: Seeds) -> None:
        """Take pseudo-labels to be trained on."""
        self.seeds = seeds
        self.label_of = seeds.labels.new_zeros(len(self.pool))
        self.label_of[seeds.ranks] = seeds.labels
        right = self.diagnostics.accuracy(seeds.ranks, seeds.labels)
        log.info("Pseudo-labels: %d, right: %.1f %%", len(seeds.labels), 100 * right)
        self.results |= {"pseudo_labels": len(seeds.labels), "pseudo_label_precision": right}

    def before_epoch(self) -> None:
        """Draw the epoch's batches."""
        steps = math.ceil(len(self.seeds.ranks) / self.cfg.DATALOADER.TRAIN_X.BATCH_SIZE)
        key = (self.cfg.SEED, self.settings, self.epoch)
        ranks = {name.replace("prompt_learner", "upl"): self.seeds.ranks for name in self.learners}
        self.train_loader_x = peer_batches(self.pool, self.cfg, "weak", ranks, steps, *key)

    def examples(self, batch: dict[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
        """Images and pseudo-labels of a batch for each member."""
        return {
            name: (part["view"].to(self.device), self.label_of[part["rank"]].to(self.device))
            for name, part in zip(self.learners, batch.values(), strict=True)
        }
