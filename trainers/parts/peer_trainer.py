"""Two peers as a Dassl trainer: how they are built, registered, deployed and tested."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from functools import partial
from operator import attrgetter
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from coft.backbones.prompts import DualPrompts, template_features
from coft.backbones.visual_tuning import check_module, light_module
from coft.method.cleanliness import CLEAN_RULES, DUAL_LOSSES
from coft.method.labelling import SCORES, answers_of
from coft.method.parallel import SideBySide
from coft.method.peer import HEADS, NEGATIVE_STARTS, Classifier, Peer
from coft.method.phases import Built, PhasedOptimizer, PhasedScheduler
from coft.method.pseudo_labels import FILTERS
from coft.method.seeding import generator
from coft.method.seeds import seed_quota
from coft.runtime.errors import UserError, did_you_mean
from coft.runtime.ranges import check_not_negative, check_positive, check_share
from dassl.optim import build_optimizer
from trainers.base import ClipTrainer

from .full_tuning import build_full_optimizer

PEERS = ("peer_a", "peer_b")
NAMED: dict[str, Collection[str]] = {  # keys whose values are names
    "FILTER": FILTERS,
    "CLEAN_RULE": CLEAN_RULES,
    "COMPLEMENTS": DUAL_LOSSES,
    "NEGATIVE_START": NEGATIVE_STARTS,
    "CLASSIFY": SCORES,
    "PHASE2.CLASSIFY": SCORES,
    "PHASE2.VIEW": ("weak", "strong"),
}
COUNTS = ("SEEDS_PER_CLASS", "LABEL_VIEWS", "PHASE1.EPOCHS", "PHASE2.EPOCHS", "PHASE2.REFRESH")
NOT_NEGATIVE = (
    *("N_CTX", "KG_WEIGHT", "SEEDS_SHARE", "PRIOR_TAU", "MIN_KEPT", "LAMBDA_DUAL", "MICRO_BATCH", "EVAL_FREQ"),
    *("PHASE1.MIN_STEPS", "PHASE1.WARMUP_STEPS"),
    *(f"PHASE2.{key}" for key in ("LR", "HEAD_LR", "WEIGHT_DECAY", "LAMBDA_DUAL")),
)
SHARES = ("PHASE1.MIN_AUC", "PHASE2.EMA", "PHASE2.WISE")
SAMPLE = 256  # images on which the peers' disagreement is measured in Phase I


class PeerTrainer(ClipTrainer):
    """Two peers with two phases each, an optimizer for each phase, and one prediction.

    The registered models are `peer_a` and `peer_b`.
    """

    settings = "COFT"  # its section of the config
    partners: Mapping[str, str] = dict(zip(PEERS, reversed(PEERS), strict=True))  # who labels and filters for whom

    def check_cfg(self, cfg: Any) -> None:
        """Refuse names that no rule goes by, and numbers that make no sense."""
        super().check_cfg(cfg)
        section = f"TRAINER.{self.settings}"
        own = cfg.TRAINER[self.settings]
        for key, known in NAMED.items():
            name = attrgetter(key)(own)
            if name not in known:
                raise UserError(f"{section}.{key} is {name!r}; {did_you_mean(name, known)}")
        check_positive(cfg, *(f"{section}.{key}" for key in COUNTS))
        check_not_negative(cfg, *(f"{section}.{key}" for key in NOT_NEGATIVE))
        check_share(cfg, *(f"{section}.{key}" for key in SHARES))
        check_module(cfg, section)
        compiler = own.PHASE2.COMPILE
        if compiler and compiler not in torch.compiler.list_backends(exclude_tags=()):
            hint = did_you_mean(compiler, torch.compiler.list_backends())
            raise UserError(f"{section}.PHASE2.COMPILE is {compiler!r}; {hint}")
        if own.PHASE2.RESTART and own.PHASE2.WISE != 1:
            raise UserError(
                f"{section}.PHASE2.RESTART leaves Phase I's encoder, so nothing is to be averaged with it; "
                f"set {section}.PHASE2.WISE 1.0"
            )

    # ---------------------------------------------------------------- building

    def build_model(self) -> None:
        """Build and register the peers. They share the frozen CLIP and differ in template and random numbers."""
        self.own = self.cfg.TRAINER[self.settings]
        self.phase1_epochs = self.rounds * self.own.PHASE1.EPOCHS
        self.max_epoch = self.phase1_epochs + self.own.PHASE2.EPOCHS
        self.set_precision(self.own.PREC, f"TRAINER.{self.settings}.PREC")
        self.load_backbone()
        order = torch.randperm(len(self.pool), generator=generator(self.cfg.SEED, "sample"))
        self.sample = order[:SAMPLE]
        own = self.own
        self.seeds_per_class = seed_quota(len(self.pool), len(self.classnames), own.SEEDS_PER_CLASS, own.SEEDS_SHARE)
        self.min_kept = min(own.MIN_KEPT, math.ceil(self.seeds_per_class / 4))
        self.anchors: dict[str, Tensor] = {}
        self.peers = {name: self._build_peer(i, name) for i, name in enumerate(PEERS)}
        for name, peer in self.peers.items():
            optimizer = PhasedOptimizer(partial(self._build_optimizer, peer))
            self.register_model(name, peer, optimizer, PhasedScheduler(optimizer))
        self.side_by_side = SideBySide(len(PEERS), self.clip_model.visual, self.device.type)
        self.deployed: dict[str, Classifier] = {}

    @property
    def rounds(self) -> int:
        """How often Phases 0 and I are run."""
        return 1

    def _build_peer(self, index: int, name: str) -> Peer:
        template = self.templates[index % len(self.templates)]
        self.anchors[name] = template_features(self.clip_model, self.classnames, template)
        return self.make_peer(name, *self.fresh_start(index, name)).to(self.device)

    def fresh_start(self, index: int, name: str, *key: int) -> tuple[DualPrompts, nn.Module]:
        """Prompts and image encoder with a light module, as Phase I begins with them.

        Args:
            index: The peer's place.
            name: The peer's name.
            *key: What makes this start another than others of the peer's.
        """
        own, source = self.own, generator(self.cfg.SEED, "peer", name, *key)
        template = self.templates[index % len(self.templates)]
        prompts = DualPrompts(self.clip_model, self.classnames, template, num_ctx=own.N_CTX, generator=source)
        return prompts, light_module(self.clip_model.visual, source, own, f"TRAINER.{self.settings}")

    def make_peer(self, name: str, prompts: DualPrompts, encoder: nn.Module) -> Peer:
        """Build a peer."""
        return Peer(self.clip_model, prompts, encoder, self.identity, **self.peer_options)

    @property
    def peer_options(self) -> dict[str, Any]:
        """Settings of a peer."""
        own = self.own
        return {
            "negative_to_visual": own.NEG_GRAD_TO_VISUAL,
            "ema_decay": own.PHASE2.EMA,
            "restart": own.PHASE2.RESTART,
            "negative_start": own.NEGATIVE_START,
            "class_negative": own.CLASS_NEGATIVE,
            "micro_batch": own.MICRO_BATCH,
            "compiler": own.PHASE2.COMPILE,
        }

    def _build_optimizer(self, peer: Peer, phase: int) -> Built:
        own = self.own
        steps = self.steps_per_epoch(phase) * (own.PHASE1 if phase == 1 else own.PHASE2).EPOCHS
        if phase == 2:
            return build_full_optimizer(cast(Classifier, peer.student), own.PHASE2, steps)
        optimizer = build_optimizer([p for p in peer.parameters() if p.requires_grad], self.cfg.OPTIM)
        return optimizer, CosineAnnealingLR(optimizer, T_max=steps)

    @property
    def seeds_per_peer(self) -> int:
        """Seeds of each class that a peer begins with, at most: its own, or with SPLIT_SEEDS False those of both."""
        return self.seeds_per_class * (1 if self.own.SPLIT_SEEDS else 2)

    def steps_per_epoch(self, phase: int) -> int:
        """Batches of an epoch: a pass over the seeds (but MIN_STEPS in all), or as many as the images make."""
        batch = self.cfg.DATALOADER.TRAIN_X.BATCH_SIZE
        if phase == 2:
            return math.ceil(len(self.pool) / batch)
        seeds = self.seeds_per_peer * len(self.classnames)
        return max(math.ceil(seeds / batch), math.ceil(self.own.PHASE1.MIN_STEPS / self.own.PHASE1.EPOCHS))

    def load_model(self, directory: str | os.PathLike[str], epoch: int | None = None) -> None:
        """Load a checkpoint of either phase: of an epoch, else the last."""
        super().load_model(directory, epoch)
        self.deployed = {}

    # ---------------------------------------------------------------- prediction

    def deploy(self) -> dict[str, Classifier]:
        """The classifiers that are tested, made once after each change of the weights."""
        if not self.deployed:
            self.deployed = self.tested()
        return self.deployed

    def tested(self) -> dict[str, Classifier]:
        """Phase II's classifiers averaged with those of Phase I, in evaluation mode."""
        heads = HEADS[:1] if self.fits_negatives and self.own.PHASE2.FIT_TESTED else HEADS
        return {name: peer.tested(self.own.PHASE2.WISE, heads).eval() for name, peer in self.peers.items()}

    @property
    def fits_negatives(self) -> bool:
        """Whether negative vectors are fitted to what they judge, instead of trained alone."""
        return bool(self.own.CLASS_NEGATIVE and self.own.LAMBDA_DUAL)

    @torch.no_grad()
    def peer_probabilities(self, image: Tensor) -> dict[str, Tensor]:
        """Softmax probabilities of each peer. Shape (n, C) each."""
        with self.autocast():
            answers = answers_of(self.deploy(), image, self.side_by_side)
        score = SCORES[self.own.CLASSIFY]
        return {name: score(*answer).float().softmax(dim=1) for name, answer in answers.items()}

    def model_inference(self, image: Tensor) -> Tensor:
        """Log of the mean of the peers' probabilities. Shape (n, C)."""
        return torch.stack(list(self.peer_probabilities(image).values())).mean(dim=0).clamp_min(1e-30).log()

    def accuracies(self) -> dict[str, float]:
        """Test accuracy (percent) of each peer and of both, for the curves; nothing depends on it.

        Empty where no label is known.
        """
        if not self.labels_known:
            return {}
        self.set_model_mode("eval")
        right: dict[str, int] = {}
        with self.clock.part("evaluation"):
            for batch in self.test_loader:
                image, label = self.parse_batch_test(batch)
                guesses = self.peer_probabilities(image)
                guesses["both"] = torch.stack(list(guesses.values())).mean(dim=0)
                for who, probabilities in guesses.items():
                    right[who] = right.get(who, 0) + int((probabilities.argmax(dim=1) == label).sum())
        total = len(self.dm.dataset.test)
        return {f"accuracy_{who}": 100 * count / total for who, count in right.items()}
