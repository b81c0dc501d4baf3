"""UPL: CoOp's prompt, learned from the zero-shot classifier's surest images of each class (Huang et al. 2022)."""

from __future__ import annotations

import logging
import math
from typing import Any

from torch import Tensor
from yacs.config import CfgNode

from dassl.engine import TRAINER_REGISTRY

from .coop import CoOp
from .parts.labelling import zero_shot_logits
from .parts.seeds import select_seeds
from .parts.unlabeled import peer_batches

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


@TRAINER_REGISTRY.register()
class UPL(CoOp):
    """Unsupervised prompt learning. No label is read: pseudo-labels come from the frozen CLIP."""

    settings = "UPL"
    label_free = True

    def build_model(self) -> None:
        """Build the prompt learner, and pseudo-label the most confident images of each class."""
        super().build_model()
        first = self.templates[:1]
        logits = zero_shot_logits(self.clip_model, self.pool, self.classnames, first, self.cfg, self.device)
        self.seeds, _ = select_seeds(logits, self.cfg.TRAINER.UPL.SEEDS_PER_CLASS)
        self.label_of = self.seeds.labels.new_zeros(len(self.pool))
        self.label_of[self.seeds.ranks] = self.seeds.labels
        right = self.diagnostics.accuracy(self.seeds.ranks, self.seeds.labels)
        log.info("Pseudo-labels: %d, right: %.1f %%", len(self.seeds.labels), 100 * right)
        self.results |= {"pseudo_labels": len(self.seeds.labels), "pseudo_label_precision": right}

    def before_epoch(self) -> None:
        """Draw the epoch's batches."""
        steps = math.ceil(len(self.seeds.ranks) / self.cfg.DATALOADER.TRAIN_X.BATCH_SIZE)
        key = (self.cfg.SEED, "UPL", self.epoch)
        self.train_loader_x = peer_batches(self.pool, self.cfg, "weak", {"upl": self.seeds.ranks}, steps, *key)

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Images and pseudo-labels of a batch, on the trainer's device."""
        mine = batch["upl"]
        return mine["view"].to(self.device), self.label_of[mine["rank"]].to(self.device)
