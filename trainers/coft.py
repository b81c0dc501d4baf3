"""CoFT: collaborative fine-tuning without a label (arXiv 2602.04337; our reconstruction, see docs/method.md)."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader

from dassl.engine import TRAINER_REGISTRY
from dassl.optim import build_optimizer
from datasets.errors import UserError, did_you_mean

from .parts.base import ClipTrainer, check_positive
from .parts.cleanliness import CLEAN_RULES, DUAL_LOSSES
from .parts.coft_keys import coft_keys
from .parts.coft_log import PeerLog
from .parts.labelling import classify_pool, opinion, zero_shot_logits
from .parts.lessons import Targets, masked_cross_entropy, seed_targets, taught_targets, text_pull
from .parts.peer import Classifier, Peer, heads_of
from .parts.phases import Built, PhasedOptimizer, PhasedScheduler
from .parts.prompts import DualPrompts, ensemble_features, template_features
from .parts.pseudo_labels import FILTERS, Opinion, keep_best
from .parts.seeding import generator
from .parts.seeds import correct_prior, seed_quota, select_seeds
from .parts.unlabeled import peer_batches
from .parts.visual_tuning import light_module

log = logging.getLogger(__name__)
PEERS = ("peer_a", "peer_b")
SAMPLE = 500  # images on which the peers' disagreement is measured in Phase I


def add_config(cfg: Any) -> None:
    """Add CoFT's keys."""
    cfg.TRAINER.COFT = coft_keys()


@TRAINER_REGISTRY.register()
class CoFT(ClipTrainer):
    """Two peers: Phase I tunes prompts and a light visual module on seeds, Phase II the encoders on filtered labels.

    Epochs of both phases are counted through: PHASE1.EPOCHS, then PHASE2.EPOCHS (OPTIM.MAX_EPOCH is not read).
    The registered models are `peer_a` and `peer_b`.
    """

    label_free = True
    settings = "COFT"  # its section of the config
    partners: Mapping[str, str] = dict(zip(PEERS, reversed(PEERS), strict=True))  # who labels and filters for whom

    def check_cfg(self, cfg: Any) -> None:
        """Refuse names that no rule goes by."""
        super().check_cfg(cfg)
        section = f"TRAINER.{self.settings}"
        own = cfg.TRAINER[self.settings]
        for key, known in (("FILTER", FILTERS), ("CLEAN_RULE", CLEAN_RULES), ("COMPLEMENTS", DUAL_LOSSES)):
            if own[key] not in known:
                raise UserError(f"{section}.{key} is {own[key]!r}; {did_you_mean(own[key], known)}")
        check_positive(cfg, *(f"{section}.{key}" for key in ("PHASE1.EPOCHS", "PHASE2.EPOCHS", "PHASE2.REFRESH")))
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
        self.anchors: dict[str, Tensor] = {}
        self.peers = {name: self._build_peer(i, name) for i, name in enumerate(PEERS)}
        for name, peer in self.peers.items():
            optimizer = PhasedOptimizer(partial(self._build_optimizer, peer))
            self.register_model(name, peer, optimizer, PhasedScheduler(optimizer))
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
        return prompts, light_module(self.clip_model.visual, source, own)

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
        }

    def _build_optimizer(self, peer: Peer, phase: int) -> Built:
        own = self.own
        steps = self.steps_per_epoch(phase) * (own.PHASE1 if phase == 1 else own.PHASE2).EPOCHS
        if phase == 1:
            optimizer = build_optimizer([p for p in peer.parameters() if p.requires_grad], self.cfg.OPTIM)
        else:
            student: Any = peer.student
            groups = [
                {"params": list(student.encoder.parameters()), "lr": own.PHASE2.LR},
                {"params": heads_of(student), "lr": own.PHASE2.HEAD_LR},
            ]
            optimizer = torch.optim.AdamW(groups, weight_decay=own.PHASE2.WEIGHT_DECAY)
        return optimizer, CosineAnnealingLR(optimizer, T_max=steps)

    def steps_per_epoch(self, phase: int) -> int:
        """Batches of an epoch: a pass over the seeds (but MIN_STEPS in all), or as many as the images make."""
        batch = self.cfg.DATALOADER.TRAIN_X.BATCH_SIZE
        if phase == 2:
            return math.ceil(len(self.pool) / batch)
        seeds = self.seeds_per_class * len(self.classnames)
        return max(math.ceil(seeds / batch), math.ceil(self.own.PHASE1.MIN_STEPS / self.own.PHASE1.EPOCHS))

    # ---------------------------------------------------------------- Phase 0

    def before_train(self) -> None:
        """Resume, or choose the seeds."""
        super().before_train()
        self.log = PeerLog(self.cfg, self.start_epoch, self.started)
        if self.start_epoch == 0:
            self.choose_seeds()

    def text_features(self) -> Tensor:
        """Text features of the zero-shot classifier. Unit length, shape (C, embed_dim)."""
        return ensemble_features(self.clip_model, self.classnames, self.templates)

    def choose_seeds(self) -> None:
        """Give each class's surest images to the peers, by turns."""
        text = self.text_features()
        logits = zero_shot_logits(self.clip_model, text, self.pool, self.cfg, self.device)
        self.log.add(0, "zero-shot", **self.accuracies(), **self.share_seeds(logits, 2 * self.seeds_per_class))

    def share_seeds(self, logits: Tensor, per_class: int | Tensor) -> dict[str, float]:
        """Give the peers, by turns, the images that some logits (N, C) are surest of.

        Returns:
            Numbers for the log.
        """
        logits = correct_prior(logits, self.own.PRIOR_TAU)
        seeds, short = select_seeds(logits, per_class)
        if short:
            log.warning("Fewer seeds than wanted for: %s", ", ".join(self.classnames[c] for c in short))
        for start, peer in enumerate(self.peers.values()):
            peer.seeds = seeds.every_other(start, len(self.classnames))
        everything = torch.arange(len(self.pool))
        return {
            "kept": len(seeds.ranks),
            "of": len(self.pool),
            "precision": self.diagnostics.accuracy(seeds.ranks, seeds.labels),
            "pool_accuracy": self.diagnostics.accuracy(everything, logits.argmax(dim=1)),
        }

    # ---------------------------------------------------------------- the loop

    @property
    def phase(self) -> int:
        """Phase of the present epoch, 1 or 2."""
        return 1 if self.epoch < self.phase1_epochs else 2

    def before_epoch(self) -> None:
        """Enter the phase, renew what the peers are taught, and draw the epoch's batches."""
        self.deployed = {}
        self.numbers: dict[str, float] = {}
        for name, peer in self.peers.items():
            peer.eval()
            if self.phase == 2 and peer.phase == 1:
                peer.enter_phase2()
                self._optims[name].enter(2)
        if self.phase == 1:
            self.targets = self.filter_seeds()
        else:
            if (self.epoch - self.phase1_epochs) % self.own.PHASE2.REFRESH == 0:
                self.teach()
            self.targets = {n: taught_targets(p.lesson, len(self.classnames)) for n, p in self.peers.items()}
        self.train_loader_x = self.draw_batches()

    def draw_batches(self) -> DataLoader:
        """The epoch's batches: for each peer the images that it is taught, weakly or strongly augmented."""
        ranks = {name: targets.ranks for name, targets in self.targets.items()}
        view = ("weak", "strong")[self.phase - 1]
        return peer_batches(
            self.pool, self.cfg, view, ranks, self.steps_per_epoch(self.phase), self.cfg.SEED, self.epoch
        )

    def filter_seeds(self) -> dict[str, Targets]:
        """Phase I: let each peer say which of the other's seeds are clean, once it can tell."""
        done = self.epoch % self.own.PHASE1.EPOCHS * self.steps_per_epoch(1)
        warm = done >= self.own.PHASE1.WARMUP_STEPS
        groups = [*(peer.seeds.ranks for peer in self.peers.values()), self.sample]
        views = self._classify(torch.cat(groups))
        pieces = {name: [x.split([len(g) for g in groups]) for x in pair] for name, pair in views.items()}
        targets = {}
        for i, (name, judge) in enumerate(self.partners.items()):
            logits, odds = (x[i] for x in pieces[judge])
            targets[name] = seed_targets(self.peers[name].seeds, logits, odds, self.own, active=warm)
        guesses = [pieces[name][0][-1].argmax(dim=1) for name in PEERS]
        self.numbers |= self.log.seeds(targets, guesses, self.diagnostics, len(self.pool))
        return targets

    def teach(self) -> None:
        """Phase II: label all images with the averaged peers, and filter what each is taught."""
        opinions = self.opinions()
        for name, other in self.partners.items():
            lesson = FILTERS[self.own.FILTER](opinions[name], opinions[other])
            score = opinions[name].clean_at(lesson.labels) + opinions[other].clean_at(lesson.labels)
            self.peers[name].lesson = keep_best(lesson, score, self.own.MIN_KEPT, len(self.classnames))
        self._report_lessons(opinions)

    def opinions(self) -> dict[str, Opinion]:
        """What each peer thinks of all images."""
        views = self._classify(None)
        return {name: opinion(*views[name], self.own.PRIOR_TAU, self.own.CLEAN_RULE) for name in PEERS}

    def teachers(self) -> dict[str, Classifier]:
        """The classifiers that label images."""
        return {name: peer.teacher() for name, peer in self.peers.items()}

    def _classify(self, ranks: Tensor | None) -> dict[str, tuple[Tensor, Tensor]]:
        teachers = {name: teacher.eval() for name, teacher in self.teachers().items()}
        with self.autocast():
            return classify_pool(teachers, self.pool, self.cfg, self.device, ranks)

    def _report_lessons(self, opinions: dict[str, Opinion]) -> None:
        lessons = {name: peer.lesson for name, peer in self.peers.items()}
        self.numbers |= self.log.lessons(opinions, lessons, self.diagnostics)
        self.log.write_pseudo_labels(self.pool.paths, self.classnames, opinions, lessons)

    def forward_backward(self, batch: dict[str, dict[str, Tensor]]) -> dict[str, float]:
        """Make one step of each peer."""
        shown: dict[str, float] = {}
        for name, peer in self.peers.items():
            losses = self.losses(name, batch)
            self.descend(sum((self.loss_weights[key] * loss for key, loss in losses.items()), torch.zeros(())), name)
            peer.update_ema()
            self.update_lr(name)
            shown |= {f"{key}_{name[-1]}": loss.item() for key, loss in losses.items()}
        return shown

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weights of the losses, by name."""
        return {"loss": 1.0, "dual": self.own.LAMBDA_DUAL, "pull": self.own.KG_WEIGHT}

    def losses(self, name: str, batch: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
        """Losses of a peer on its part of a batch, by name; each a scalar."""
        targets, part = self.targets[name], batch[name]
        with self.autocast():
            learner = self.peers[name].learner()
            features = learner.features(part["view"].to(self.device))
            logits, odds = learner.classify(features)
        label, keep, dual_label = (x.to(self.device) for x in targets.of(part["rank"]))
        source = generator(self.cfg.SEED, "complement", name, self.epoch, self.batch_idx)
        logits = logits.float() + targets.adjustment.to(self.device)
        losses = {
            "loss": masked_cross_entropy(logits, label, keep),
            "dual": DUAL_LOSSES[self.own.COMPLEMENTS](odds.float(), dual_label, source),
        }
        if self.phase == 1 and self.own.KG_WEIGHT:
            losses["pull"] = text_pull(learner.positive.float(), self.anchors[name])
        return losses | self.more_losses(name, batch, features)

    def more_losses(self, name: str, batch: dict[str, dict[str, Tensor]], features: Tensor) -> dict[str, Tensor]:
        """Losses that variants of the method add, by name.

        Args:
            name: The peer's.
            batch: The batch.
            features: The peer's features of its part of the batch. Shape (n, embed_dim).
        """
        return {}

    def after_epoch(self) -> None:
        """Measure for the curves, and save; the end of Phase I in any case."""
        self.deployed = {}
        done, own = self.epoch + 1, self.own
        ends = done in (self.phase1_epochs, self.max_epoch)
        if ends or (own.EVAL_FREQ and done % own.EVAL_FREQ == 0):
            self.numbers |= self.accuracies()
        self.log.add(done, f"phase{self.phase}", **self.numbers)
        for key, value in self.numbers.items():
            self.write_scalar(f"coft/{key}", value, done)
        super().after_epoch()
        if done == self.phase1_epochs:
            self.save_model(self.epoch, self.output_dir)

    def after_train(self) -> None:
        """Evaluate as Dassl does, and write what is left for people to read."""
        self.results |= self.log.results()
        super().after_train()
        self.log.finish()

    def load_model(self, directory: str | os.PathLike[str], epoch: int | None = None) -> None:
        """Load a checkpoint of either phase: of an epoch, else the last."""
        super().load_model(directory, epoch)
        self.deployed = {}

    # ---------------------------------------------------------------- prediction

    def deploy(self) -> dict[str, Classifier]:
        """The classifiers that are tested, made once after each change of the weights."""
        if not self.deployed:
            self.deployed = {name: peer.tested(self.own.PHASE2.WISE).eval() for name, peer in self.peers.items()}
        return self.deployed

    @torch.no_grad()
    def peer_probabilities(self, image: Tensor) -> dict[str, Tensor]:
        """Softmax probabilities of each peer. Shape (n, C) each."""
        with self.autocast():
            return {name: classifier(image)[0].float().softmax(dim=1) for name, classifier in self.deploy().items()}

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
        for batch in self.test_loader:
            image, label = self.parse_batch_test(batch)
            guesses = self.peer_probabilities(image)
            guesses["both"] = torch.stack(list(guesses.values())).mean(dim=0)
            for who, probabilities in guesses.items():
                right[who] = right.get(who, 0) + int((probabilities.argmax(dim=1) == label).sum())
        total = len(self.dm.dataset.test)
        return {f"accuracy_{who}": 100 * count / total for who, count in right.items()}
