"""CoFT+: CoFT with iterated tuning, momentum contrastive learning and class descriptions (our reconstruction)."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from coft.backbones.descriptions import Descriptions, described_features, descriptions_of, load_descriptions
from coft.backbones.prompts import DualPrompts
from coft.images.unlabeled import peer_batches
from coft.method.contrastive import ContrastingPeer
from coft.method.described import DescribedClassifier
from coft.method.peer import Classifier, Peer
from coft.method.seeding import derive
from coft.method.seeds import growing_quotas
from coft.runtime.ranges import check_above_zero, check_not_negative, check_positive, check_share
from dassl.engine import TRAINER_REGISTRY

from .coft import CoFT
from .parts.coft_keys import coft_keys

log = logging.getLogger(__name__)
ASIDE = " aside"  # names the images of a batch that the filter leaves out


def add_config(cfg: Any) -> None:
    """Add CoFT+'s keys: CoFT's, and those of its three parts."""
    own = cfg.TRAINER.COFTPLUS = coft_keys()
    own.ROUNDS = 3  # how often Phases 0 and I are run
    own.WARM_START = False  # True: a round goes on with the prompts and visual modules of the one before
    own.CONTRAST = CfgNode({"WEIGHT": 0.5, "QUEUE": 4096, "TEMPERATURE": 0.07, "DIM": 128})
    # auto: those that come with the data set, if there are any; none; or a file
    own.DESCRIPTIONS = CfgNode({"FROM": "auto", "AT_SEEDS": 0.25, "AT_PREDICTION": 0.1})


@TRAINER_REGISTRY.register()
class CoFTPlus(CoFT):
    """CoFT plus three parts, each of which a key takes away.

    ROUNDS 1, CONTRAST.WEIGHT 0 and DESCRIPTIONS.FROM none make it CoFT.
    """

    settings = "COFTPLUS"

    def check_cfg(self, cfg: Any) -> None:
        """Refuse numbers that make no sense."""
        super().check_cfg(cfg)
        check_positive(cfg, *(f"TRAINER.COFTPLUS.{key}" for key in ("ROUNDS", "CONTRAST.QUEUE", "CONTRAST.DIM")))
        check_not_negative(cfg, "TRAINER.COFTPLUS.CONTRAST.WEIGHT")
        check_above_zero(cfg, "TRAINER.COFTPLUS.CONTRAST.TEMPERATURE")
        check_share(cfg, *(f"TRAINER.COFTPLUS.DESCRIPTIONS.{key}" for key in ("AT_SEEDS", "AT_PREDICTION")))

    # ---------------------------------------------------------------- descriptions

    def build_model(self) -> None:
        """Build the peers, and text features of the descriptions."""
        super().build_model()
        self.described = self.describe(1.0)

    def describe(self, share: float) -> Tensor | None:
        """Text features of templates and descriptions, unit length, shape (C, embed_dim); None without descriptions.

        Args:
            share: Weight of the descriptions.
        """
        source = self.own.DESCRIPTIONS.FROM
        if source == "none":
            return None
        found = self.own_descriptions if source == "auto" else load_descriptions(Path(source))
        if found is None:
            return None
        return described_features(self.clip_model, self.classnames, self.templates, found, share)

    @cached_property
    def own_descriptions(self) -> Descriptions | None:
        """The data set's descriptions, if there are any."""
        return descriptions_of(self.dm.dataset, self.cfg.DATASET.NAME, self.templates[0])

    def text_features(self) -> Tensor:
        """Text features of the zero-shot classifier, with descriptions. Unit length, shape (C, embed_dim)."""
        mixed = self.describe(self.own.DESCRIPTIONS.AT_SEEDS)
        return super().text_features() if mixed is None else mixed

    def deploy(self) -> dict[str, Classifier]:
        """The classifiers that are tested; descriptions have a share in their positive vectors."""
        if not self.deployed:
            self.deployed = {name: self._with_descriptions(c) for name, c in super().deploy().items()}
        return self.deployed

    def _with_descriptions(self, classifier: Classifier) -> Classifier:
        if self.described is None:
            return classifier
        return DescribedClassifier(classifier, self.described, self.own.DESCRIPTIONS.AT_PREDICTION).eval()

    # ---------------------------------------------------------------- rounds

    @property
    def rounds(self) -> int:
        """How often Phases 0 and I are run."""
        return int(self.own.ROUNDS)

    def before_epoch(self) -> None:
        """Choose new seeds where a round begins."""
        number, into = divmod(self.epoch, self.own.PHASE1.EPOCHS)
        if self.phase == 1 and number and not into:
            self.begin_round(number)
        super().before_epoch()

    @torch.no_grad()
    def begin_round(self, number: int) -> None:
        """Let both peers together choose more seeds than in the round before, and begin Phase I again.

        Args:
            number: Of the round, from 1.
        """
        views = self._classify(None)
        together = self.together(views)
        opinions = self.opinions_of(views).values()
        labels = together.argmax(dim=1)
        clean = torch.stack([o.clean_at(labels) > 0.5 for o in opinions]).all(dim=0)
        coverage = torch.bincount(labels[clean], minlength=len(self.classnames))
        quotas = growing_quotas(coverage, 2 * self.seeds_per_class, number / max(1, self.rounds - 1))
        numbers = self.share_seeds(together, quotas)
        log.info("Round %d: %s", number + 1, ", ".join(f"{key} {value:.4g}" for key, value in numbers.items()))
        for index, (name, peer) in enumerate(self.peers.items()):
            if not self.own.WARM_START:
                peer.start_afresh(*self.fresh_start(index, name, number))
                peer.to(self.device)
            self._optims[name].enter(1)

    # ---------------------------------------------------------------- contrastive learning

    def make_peer(self, name: str, prompts: DualPrompts, encoder: nn.Module) -> Peer:
        """Build a peer with a queue of at most half of the images."""
        own = self.own.CONTRAST
        if not self.contrasts:
            return super().make_peer(name, prompts, encoder)
        return ContrastingPeer(
            self.clip_model,
            prompts,
            encoder,
            self.identity,
            queue_size=max(1, min(own.QUEUE, len(self.pool) // 2)),
            dim=own.DIM,
            seed=derive(self.cfg.SEED, "projection", name),
            **self.peer_options,
        )

    @cached_property
    def contrasts(self) -> bool:
        """Whether Phase II has a contrastive loss."""
        return bool(self.own.CONTRAST.WEIGHT)

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weights of the losses, by name."""
        return super().loss_weights | {"contrast": self.own.CONTRAST.WEIGHT}

    def draw_batches(self) -> DataLoader:
        """In Phase II also images that the filter left aside, in proportion but no more than of the others."""
        if self.phase == 1 or not self.contrasts:
            return super().draw_batches()
        ranks: dict[str, Tensor] = {}
        sizes: dict[str, int] = {}
        for name, peer in self.peers.items():
            kept, aside = (torch.nonzero(mask).flatten() for mask in (peer.lesson.weight > 0, peer.lesson.weight == 0))
            batch = min(self.cfg.DATALOADER.TRAIN_X.BATCH_SIZE, len(kept))
            ranks |= {name: kept, name + ASIDE: aside}
            sizes[name + ASIDE] = min(batch, batch * len(aside) // len(kept))
        key = (self.cfg.SEED, self.epoch)
        return peer_batches(
            self.pool, self.cfg, f"{self.own.PHASE2.VIEW} and weak", ranks, self.steps_per_epoch(2), *key, sizes=sizes
        )

    def losses(self, name: str, batch: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
        """Losses of a peer on its part of a batch, by name; each a scalar."""
        if self.phase == 1 or not self.contrasts:
            return super().losses(name, batch)
        mine = {group: batch[group] for group in (name, name + ASIDE) if group in batch}
        pairs = {
            group: {"rank": part["rank"], "view": part["view"][:, 0], "key view": part["view"][:, 1]}
            for group, part in mine.items()
        }
        return super().losses(name, pairs)

    def more_losses(self, name: str, batch: dict[str, dict[str, Tensor]], features: Tensor) -> dict[str, Tensor]:
        """The contrastive loss of all images of a peer's batch, in Phase II."""
        if self.phase == 1 or not self.contrasts:
            return {}
        peer: Any = self.peers[name]
        with self.autocast():
            if name + ASIDE in batch:
                aside = peer.learner().features(batch[name + ASIDE]["view"].to(self.device))
                features = torch.cat([features, aside])
            key_views = torch.cat([part["key view"] for part in batch.values()]).to(self.device)
            ranks = torch.cat([part["rank"] for part in batch.values()])
            return {"contrast": peer.contrast(features, key_views, ranks, self.own.CONTRAST.TEMPERATURE)}
