"""CoFT: collaborative fine-tuning without a label (arXiv 2602.04337; our reconstruction, see docs/method.md)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from coft.backbones.descriptions import zero_shot_features
from coft.images.unlabeled import peer_batches
from coft.method.cleanliness import DUAL_LOSSES
from coft.method.labelling import SCORES, zero_shot_logits
from coft.method.lessons import Targets, seed_targets, taught_targets, text_pull, weighted_cross_entropy
from coft.method.pseudo_labels import FILTERS, Lesson, Opinion, harden, keep_best
from coft.method.seeding import generator
from coft.method.seeds import Seeds, correct_prior_, select_seeds
from coft.method.tables import each_row
from coft.runtime.errors import UserError
from coft.runtime.run_log import PeerLog
from dassl.engine import TRAINER_REGISTRY

from .parts.coft_keys import coft_keys
from .parts.judging import JudgingTrainer
from .parts.peer_trainer import PEERS

log = logging.getLogger(__name__)


def add_config(cfg: Any) -> None:
    """Add CoFT's keys."""
    cfg.TRAINER.COFT = coft_keys()


@TRAINER_REGISTRY.register()
class CoFT(JudgingTrainer):
    """Two peers: Phase I tunes prompts and a light visual module on seeds, Phase II the encoders on filtered labels.

    Epochs of both phases are counted through: PHASE1.EPOCHS, then PHASE2.EPOCHS (OPTIM.MAX_EPOCH is not read).
    The registered models are `peer_a` and `peer_b`.
    """

    label_free = True

    # ---------------------------------------------------------------- Phase 0

    def before_train(self) -> None:
        """Resume, or choose the seeds."""
        super().before_train()
        self.log = PeerLog(self.cfg, self.start_epoch, self.started)
        self.numbers: dict[str, float] = {}
        if self.start_epoch == 0:
            self.choose_seeds()

    def text_features(self) -> Tensor:
        """Text features of the zero-shot classifier. Unit length, shape (C, embed_dim)."""
        return zero_shot_features(self, self.templates)

    def choose_seeds(self) -> None:
        """Give each class's surest images to the peers, by turns."""
        text = self.text_features()
        views = self.own.LABEL_VIEWS
        logits = zero_shot_logits(self.clip_model, text, self.pool, self.cfg, self.device, views, self.view_key)
        correct_prior_(logits, self.own.PRIOR_TAU)
        self.log.add(0, "zero-shot", **self.accuracies(), **self.share_seeds(logits, 2 * self.seeds_per_class))

    def share_seeds(self, logits: Tensor, per_class: int | Tensor) -> dict[str, float]:
        """Give the peers the images that some logits are surest of, by turns or all to both.

        Args:
            logits: Of all images, corrected. Shape (N, C).
            per_class: How many of each class: one number, or shape (C,).

        Returns:
            Numbers for the log.
        """
        seeds = self.pick_seeds(logits, per_class)
        self.hand_out(seeds)
        everything, labels = torch.arange(len(self.pool)), logits.argmax(dim=1)
        return {
            "kept": len(seeds.ranks),
            "of": len(self.pool),
            "precision": self.diagnostics.accuracy(seeds.ranks, seeds.labels),
            "pool_accuracy": self.diagnostics.accuracy(everything, labels),
            "pool_cluster_accuracy": self.diagnostics.cluster_accuracy(labels),
        }

    def hand_out(self, seeds: Seeds) -> None:
        """Give seeds to the peers, by turns or all to both."""
        for start, peer in enumerate(self.peers.values()):
            peer.seeds = seeds.every_other(start, len(self.classnames)) if self.own.SPLIT_SEEDS else seeds

    def pick_seeds(self, logits: Tensor, per_class: int | Tensor) -> Seeds:
        """Take each class's surest images, and say where there are too few.

        Args:
            logits: Of all images, corrected. Shape (N, C).
            per_class: How many of each class.
        """
        seeds, short = select_seeds(logits, per_class)
        if short and self.phase == 1:
            log.warning("Fewer seeds than wanted for: %s", ", ".join(self.classnames[c] for c in short))
        return seeds

    # ---------------------------------------------------------------- the loop

    @property
    def phase(self) -> int:
        """Phase of the present epoch, 1 or 2."""
        return 1 if self.epoch < self.phase1_epochs else 2

    def before_epoch(self) -> None:
        """Enter the phase, renew what the peers are taught, and draw the epoch's batches."""
        self.deployed = {}
        self.numbers = {}
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
        view = "weak" if self.phase == 1 else self.own.PHASE2.VIEW
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
            targets[name] = self.judge_seeds(name, logits, odds, warm)
        guesses = [self.guesses(*(x[-1] for x in pieces[name])) for name in PEERS]
        self.numbers |= self.log.seeds(targets, guesses, self.diagnostics, len(self.pool))
        return targets

    def judge_seeds(self, name: str, logits: Tensor, odds: Tensor, warm: bool) -> Targets:
        """Say what a peer is taught in an epoch of Phase I.

        Args:
            name: The peer's.
            logits: The judge's, of the peer's seeds. Shape (n, C).
            odds: The judge's clean log-odds of them. Shape (n, C).
            warm: Whether warm-up is over.
        """
        guesses = self.guesses(logits, odds)
        return seed_targets(self.peers[name].seeds, guesses, odds, self.own, active=warm, at_least=self.min_kept)

    def guesses(self, logits: Tensor, odds: Tensor) -> Tensor:
        """Classes as CLASSIFY says. Shape (n,)."""
        score = SCORES[self.own.CLASSIFY]
        return each_row(lambda rows, d: score(rows, d).argmax(dim=1), logits, odds)

    def teach(self) -> None:
        """Phase II: label all images with the averaged peers, and filter what each is taught.

        Raises:
            UserError: If the filter keeps no label.
        """
        features = self.encode()
        if self.renews_seeds:
            self.renew_seeds(features)
        self.fit_negatives(features)
        opinions = self.opinions_of(self.classified(features))
        for name, other in self.partners.items():
            self.peers[name].lesson = self.filtered(opinions[name], opinions[other])
            if not self.peers[name].lesson.weight.any():
                section = f"TRAINER.{self.settings}"
                raise UserError(f"{section}.FILTER {self.own.FILTER} keeps no pseudo-label; set {section}.MIN_KEPT 1")
        self._report_lessons(opinions)

    @property
    def renews_seeds(self) -> bool:
        """Whether seeds are chosen anew: once the peers have learned from more than the seeds they have."""
        return bool(self.own.PHASE2.RENEW_SEEDS and self.fits_negatives and self.epoch > self.phase1_epochs)

    def renew_seeds(self, features: Mapping[str, Tensor]) -> None:
        """Phase II: choose the seeds anew, as Phase 0 does, by what the peers say now; each its own with FILTER self.

        What judges labels is fitted to the seeds; those of Phase 0 are right as often as zero-shot CLIP was.

        Args:
            features: Of all images, by peer. Shape (N, embed_dim) each.
        """
        views = self.classified(features)
        if self.own.FILTER == "self":
            for name, peer in self.peers.items():
                peer.seeds = self.pick_seeds(self.together({name: views[name]}), self.seeds_per_peer)
        else:
            self.hand_out(self.pick_seeds(self.together(views), 2 * self.seeds_per_class))
        seeds = [peer.seeds for peer in self.peers.values()]
        ranks, labels = torch.cat([chosen.ranks for chosen in seeds]), torch.cat([chosen.labels for chosen in seeds])
        self.numbers["seeds_precision"] = self.diagnostics.accuracy(ranks, labels)

    def filtered(self, own: Opinion, other: Opinion) -> Lesson:
        """Say what a peer is taught in Phase II: what the filter lets through, and of each class at least a few.

        Args:
            own: The peer's opinion.
            other: Its partner's.
        """
        lesson = FILTERS[self.own.FILTER](own, other)
        score = own.clean_at(lesson.labels) + other.clean_at(lesson.labels)
        return keep_best(lesson if self.own.SOFT else harden(lesson), score, self.min_kept, len(self.classnames))

    def _report_lessons(self, opinions: dict[str, Opinion]) -> None:
        lessons = {name: peer.lesson for name, peer in self.peers.items()}
        labelled_by = {name: name for name in PEERS} if self.own.FILTER == "self" else self.partners
        self.numbers |= self.log.lessons(opinions, lessons, labelled_by, self.diagnostics)
        self.log.write_pseudo_labels(self.pool.paths, self.classnames, opinions, lessons)

    def forward_backward(self, batch: dict[str, dict[str, Tensor]]) -> dict[str, float]:
        """Make one step of each peer."""
        # Operations that are recorded or compiled are of one thread.
        together = not (self.profile or self.own.PHASE2.COMPILE)
        shown = self.side_by_side.map(partial(self.step, batch), list(self.peers), together=together)
        return {key: value for losses in shown for key, value in losses.items()}

    def step(self, batch: dict[str, dict[str, Tensor]], name: str) -> dict[str, float]:
        """Make one step of a peer.

        Returns:
            Its losses.
        """
        losses = self.losses(name, batch)
        self.descend(sum((self.loss_weights[key] * loss for key, loss in losses.items()), torch.zeros(())), name)
        self.peers[name].update_ema()
        self.update_lr(name)
        return {f"{key}_{name[-1]}": loss.item() for key, loss in losses.items()}

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weights of the losses, by name."""
        dual = (self.own if self.phase == 1 else self.own.PHASE2).LAMBDA_DUAL
        return {"loss": 1.0, "dual": dual, "pull": self.own.KG_WEIGHT}

    def losses(self, name: str, batch: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
        """Losses of a peer on its part of a batch, by name; each a scalar."""
        targets, part = self.targets[name], batch[name]
        with self.autocast():
            learner = self.peers[name].learner()
            features = learner.features(part["view"].to(self.device))
            logits, odds = learner.classify(features)
        label, weight, dual_label = (x.to(self.device) for x in targets.of(part["rank"]))
        logits = logits.float() + targets.adjustment.to(self.device)
        losses = {"loss": weighted_cross_entropy(logits, label, weight)}
        if self.loss_weights["dual"]:
            source = generator(self.cfg.SEED, "complement", name, self.epoch, self.batch_idx)
            losses["dual"] = DUAL_LOSSES[self.own.COMPLEMENTS](odds.float(), dual_label, source)
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
        if done == self.max_epoch or (self.phase == 1 and done % own.PHASE1.EPOCHS == 0):
            self.fit_negatives(to_lessons=self.phase == 2)  # nothing is judged after Phase II
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
