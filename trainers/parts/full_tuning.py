"""Full fine-tuning of image encoders: CoFT's Phase II as a trainer of its own, for those that differ in the labels."""

from __future__ import annotations

import math
import os
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from yacs.config import CfgNode

from coft.backbones.descriptions import zero_shot_features
from coft.images.unlabeled import peer_batches
from coft.method.ensembling import average_predictions
from coft.method.lessons import taught_targets, weighted_cross_entropy
from coft.method.parallel import SideBySide
from coft.method.peer import Classifier, Peer, heads_of
from coft.method.phases import Built
from coft.runtime.ranges import check_not_negative, check_positive, check_share
from trainers.base import ClipTrainer

SHARED = ("EPOCHS", "LR", "HEAD_LR", "WEIGHT_DECAY", "EMA", "WISE")


def tuning_keys(cfg: Any, *more: str) -> CfgNode:
    """Keys of full fine-tuning, with the defaults of CoFT's Phase II, whose keys must have been added before.

    Args:
        cfg: The config.
        *more: Further keys of Phase II to take over.
    """
    own = CfgNode({key: cfg.TRAINER.COFT.PHASE2[key] for key in (*SHARED, *more)})
    own.PREC = "fp32"  # fp32, bf16, fp16, amp, or auto: what the machine is faster with
    own.ENSEMBLE = 2  # models trained independently, whose probabilities are averaged: as many as CoFT has
    return own


def build_full_optimizer(student: Classifier, own: Any, steps: int) -> Built:
    """Build AdamW for what trains in encoder and heads, and a cosine over all steps.

    Args:
        student: What trains.
        own: The keys LR, HEAD_LR and WEIGHT_DECAY.
        steps: Steps of the whole phase.
    """
    groups = [
        {"params": [p for p in student.encoder.parameters() if p.requires_grad], "lr": own.LR},
        {"params": heads_of(student), "lr": own.HEAD_LR},
    ]
    # Fused: a step reads and writes each weight once, which on a CPU is three times as fast.
    optimizer = torch.optim.AdamW(groups, weight_decay=own.WEIGHT_DECAY, fused=True)
    return optimizer, CosineAnnealingLR(optimizer, T_max=steps)


class FixedText(nn.Module):
    """Text features in the place of prompts. Called as `DualPrompts` is; the negative ones are the same."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features: Tensor
        self.register_buffer("features", features, persistent=False)

    def forward(self, clip_model: Any) -> tuple[Tensor, Tensor]:
        """Return the features twice, shape (C, embed_dim)."""
        return self.features, self.features


class FullTuning(ClipTrainer):
    """Independent models, each an image encoder with a head of text features, all of whose weights train.

    What they are taught is the business of subclasses (`teach`). The registered models are `model_1`, `model_2` ...
    """

    settings: str

    def check_cfg(self, cfg: Any) -> None:
        """Refuse numbers that make no sense."""
        super().check_cfg(cfg)
        section = f"TRAINER.{self.settings}"
        check_positive(cfg, f"{section}.EPOCHS", f"{section}.ENSEMBLE")
        check_share(cfg, f"{section}.EMA", f"{section}.WISE")
        check_not_negative(cfg, *(f"{section}.{key}" for key in ("LR", "HEAD_LR", "WEIGHT_DECAY")))

    def build_model(self) -> None:
        """Build and register the models. They start alike and differ in their batches and views."""
        self.own = self.cfg.TRAINER[self.settings]
        self.max_epoch = self.own.EPOCHS
        self.set_precision(self.own.PREC, f"TRAINER.{self.settings}.PREC")
        self.load_backbone()
        names = [f"model_{number}" for number in range(1, self.own.ENSEMBLE + 1)]
        self.peers = {name: self.build_peer(name) for name in names}
        for name, peer in self.peers.items():
            steps = self.steps_per_epoch * self.own.EPOCHS
            self.register_model(name, peer, *build_full_optimizer(peer.learner(), self.own, steps))
        self.side_by_side = SideBySide(len(names), self.clip_model.visual, self.device.type)
        self.deployed: list[Classifier] = []

    def build_peer(self, name: str) -> Peer:
        """Build a model."""
        text: Any = FixedText(self.first_head(name))
        peer = Peer(self.clip_model, text, self.first_encoder(name), self.identity, ema_decay=self.own.EMA)
        peer.to(self.device).enter_phase2()
        return peer

    def first_encoder(self, name: str) -> nn.Module:
        """Image encoder that a model starts with."""
        return self.clip_model.visual

    def first_head(self, name: str) -> Tensor:
        """Text features that a model starts with: the averaged templates'. Unit length, shape (C, embed_dim)."""
        return zero_shot_features(self, self.templates)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch: as many as the images make."""
        return math.ceil(len(self.pool) / self.cfg.DATALOADER.TRAIN_X.BATCH_SIZE)

    def teach(self) -> None:
        """Give each model its `lesson`."""
        raise NotImplementedError

    def before_epoch(self) -> None:
        """Renew what the models are taught when it is due (without REFRESH, or with 0, once), and draw the batches."""
        self.deployed = []
        if self.epoch % (self.own.get("REFRESH", 0) or self.max_epoch) == 0:
            self.set_model_mode("eval")
            self.teach()
        self.targets = {n: taught_targets(p.lesson, len(self.classnames)) for n, p in self.peers.items()}
        ranks = {name: targets.ranks for name, targets in self.targets.items()}
        key = (self.cfg.SEED, self.settings, self.epoch)
        self.train_loader_x = peer_batches(self.pool, self.cfg, "strong", ranks, self.steps_per_epoch, *key)

    def forward_backward(self, batch: dict[str, dict[str, Tensor]]) -> dict[str, float]:
        """Make one step of each model."""
        names = list(batch)
        losses = self.side_by_side.map(partial(self.step, batch), names, together=not self.profile)
        return dict(zip((name.replace("model", "loss") for name in names), losses, strict=True))

    def step(self, batch: dict[str, dict[str, Tensor]], name: str) -> float:
        """Make one step of a model.

        Returns:
            Its loss.
        """
        loss = self.loss(name, batch[name])
        self.descend(loss, name)
        self.peers[name].update_ema()
        self.update_lr(name)
        return loss.item()

    def loss(self, name: str, part: dict[str, Tensor]) -> Tensor:
        """Cross-entropy of a model on its part of a batch, with logits adjusted by the labels' frequencies."""
        targets = self.targets[name]
        with self.autocast():
            logits, _ = self.peers[name].learner()(part["view"].to(self.device))
        label, weight, _ = (x.to(self.device) for x in targets.of(part["rank"]))
        return weighted_cross_entropy(logits.float() + targets.adjustment.to(self.device), label, weight)

    def load_model(self, directory: str | os.PathLike[str], epoch: int | None = None) -> None:
        """Load a checkpoint: of an epoch, else the last."""
        super().load_model(directory, epoch)
        self.deployed = []

    @torch.no_grad()
    def model_inference(self, image: Tensor) -> Tensor:
        """Log of the mean of the models' probabilities. Shape (n, C).

        Weights are averaged with those of the pre-trained encoder and the text features (WISE).
        """
        self.deployed = self.deployed or [peer.tested(self.own.WISE).eval() for peer in self.peers.values()]
        with self.autocast():
            return average_predictions([classifier(image)[0].float() for classifier in self.deployed])
