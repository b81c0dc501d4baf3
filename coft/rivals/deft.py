"""DeFT (Wei et al. 2024), made for noisy labels, fed with zero-shot labels (our reconstruction)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from coft.core.seeding import generator
from coft.core.settings import setting, share
from coft.labelling.classifier import Classifier
from coft.labelling.losses import adjusted_cross_entropy, log_mean
from coft.labelling.predictor import Predictor, finished
from coft.labelling.pseudo_labels import PseudoLabels
from coft.method.coft import MIN_AUC, MIN_KEPT, WARMUP_STEPS
from coft.method.coft_settings import PRECISIONS
from coft.method.filters import keep_best
from coft.method.labeller import predict, zero_shot_logits
from coft.method.negative_prompt import draw_complement, dual_loss, separation
from coft.method.optimizers import light_optimizer
from coft.method.pair import Losses, MakeOptimizer, Pair
from coft.method.peer import Peer
from coft.method.protocol import Backbone, Batch, Images, Method, Observer, Runtime


@dataclass(frozen=True)
class Phase1:
    """Parameter-efficient tuning."""

    epochs: int = setting(10, "epochs of Phase I", at_least=1)
    min_steps: int = setting(300, "steps of Phase I, at least; an epoch is a pass over the images", at_least=0)


@dataclass(frozen=True)
class Phase2:
    """Full fine-tuning on the labels that are clean."""

    epochs: int = setting(10, "epochs of Phase II", at_least=1)
    lr: float = setting(1e-5, "learning rate of the image encoders; the heads have ten times as much", at_least=0.0)
    ema: float = share(0.99, "decay of the moving average that is tested")


@dataclass(frozen=True)
class DeFTSettings:
    """Settings of DeFT."""

    prec: str = setting(
        "fp32",
        "precision of the forward pass; bf16-predict: steps in fp32, predictions in bf16; auto: what is faster",
        choices=PRECISIONS,
    )
    n_ctx: int = setting(16, "random context tokens; 0: the words of the data set's template", at_least=0)
    visual: str = setting("auto", "light visual module of Phase I; auto: vpt-deep for a ViT, else norms-and-biases")
    lambda_dual: float = setting(1.0, "weight of the dual loss in Phase I", at_least=0.0)
    phase1: Phase1 = field(default_factory=Phase1)
    phase2: Phase2 = field(default_factory=Phase2)


class DeFT(Method):
    """Two models, each on its own, whose probabilities are averaged. Every image has its zero-shot label.

    In Phase I each model tunes prompts and a light visual module on the labels that it calls clean itself,
    sigmoid(d) > 1/2. In Phase II pre-trained weights are fine-tuned on those that its Phase I calls clean.

    Unlike the published method: labels that a model calls unclean are replaced by its own predictions in the dual loss,
    logits are adjusted by class frequencies, the surest few labels of each class are kept, nothing is filtered before
    d tells labels from other classes, and warm-up is counted in steps, as in CoFT; in Phase II the classifier starts
    from the tuned prompts, and a moving average of the weights is tested.

    Args:
        images: The unlabeled images.
        backbone: CLIP for the classes at hand.
        settings: See `DeFTSettings`.
        runtime: Where and how to compute.
        observer: Sees the pseudo-labels.
        make_optimizer: Makes the optimizer of Phase I from its parameters.
    """

    def __init__(
        self,
        images: Images,
        backbone: Backbone,
        settings: DeFTSettings,
        runtime: Runtime,
        observer: Observer | None = None,
        make_optimizer: MakeOptimizer = light_optimizer,
    ) -> None:
        super().__init__()
        self.images, self.backbone, self.settings, self.runtime = images, backbone, settings, runtime
        self.observer, self.num_classes = observer or Observer(), len(backbone.classnames)
        self.per_class = max(1, round(len(images) / self.num_classes))
        self.min_kept = min(MIN_KEPT, math.ceil(self.per_class / 4))
        self.phase1_epochs = settings.phase1.epochs
        self.epochs, self.epoch, self.steps_done = self.phase1_epochs + settings.phase2.epochs, 0, 0
        steps = {1: self.steps(1) * settings.phase1.epochs, 2: self.steps(2) * settings.phase2.epochs}
        self.pair = Pair(images, backbone, runtime, settings, steps, make_optimizer, self.make_peer)
        self.peers, self.models = self.pair.peers, dict(self.pair.peers)
        self.optimizers, self.schedulers = self.pair.optimizers, self.pair.schedulers
        self.tested: dict[str, Classifier] = {}

    def make_peer(self, name: str, *parts: Any) -> Peer:
        """Build a model. Gradients of the dual loss stop at the image features."""
        return Peer(
            *parts,
            negative_to_visual=False,
            negative_from_mean=False,
            ema_decay=self.settings.phase2.ema,
            phase2_encoder=self.backbone.visual,
            micro_batch=self.runtime.micro_batch,
            compiler=self.runtime.compiler,
        )

    def begin(self) -> None:
        """Give every image its zero-shot label."""
        features, text = self.backbone.image_features(self.images), self.backbone.zero_shot_text()
        logits = zero_shot_logits(features, text, self.backbone.scale, self.runtime)
        labels = PseudoLabels.of_pool(self.runtime.world.gather(logits.argmax(dim=1)))
        for peer in self.peers.values():
            peer.take_seeds(labels)
        self.observer.seeds_chosen(labels, logits, torch.zeros(self.num_classes, dtype=torch.long))

    def begin_epoch(self, epoch: int) -> Sequence[Batch]:
        """Phase I: filter the labels. Phase II: filter them once, by the models of Phase I. Then draw the batches."""
        self.epoch, self.steps_done, self.tested = epoch, 0, {}
        self.pair.enter(self.phase(epoch))
        if self.phase(epoch) == 1:
            self.labels, self.dual_labels = self.filter_in_phase1()
        else:
            if epoch == self.phase1_epochs:
                self.filter_for_phase2()
            self.labels = {name: peer.labels.weighted() for name, peer in self.peers.items()}
        self.frequency = {name: labels.log_frequency(self.num_classes) for name, labels in self.labels.items()}
        index = {name: labels.index for name, labels in self.labels.items()}
        view = "weak" if self.phase(epoch) == 1 else "strong"
        return self.images.batches(view, index, self.steps(self.phase(epoch)), self.runtime.seed, epoch)

    def filter_in_phase1(self) -> tuple[dict[str, PseudoLabels], dict[str, PseudoLabels]]:
        """Let each model say which of its labels are clean.

        Returns:
            Labels of the classification loss, and of the dual loss, where unclean ones are the model's predictions.
        """
        labels = {name: peer.seeds for name, peer in self.peers.items()}
        dual_labels = {name: PseudoLabels.of_pool(own.label) for name, own in labels.items()}
        separations = []
        if self.epoch * self.steps(1) >= WARMUP_STEPS:
            world, teachers = self.runtime.world, self.pair.teachers()
            features = self.pair.labeller.encode(teachers, 1, self.epoch)
            for name, (logits, log_odds) in self.pair.labeller.classify(teachers, features).items():
                label = labels[name].label
                mine = label[world.part(len(label))]
                separations.append(separation(log_odds, mine, world))
                if separations[-1] > MIN_AUC:
                    at_label = world.gather(log_odds.gather(1, mine.unsqueeze(1)).squeeze(1))
                    clean = PseudoLabels.of_pool(label, at_label.sigmoid() > 0.5)
                    labels[name] = keep_best(clean, at_label, self.min_kept, self.num_classes)
                dual = torch.where(labels[name].keep, label, world.gather(logits.argmax(dim=1)))
                dual_labels[name] = PseudoLabels.of_pool(dual)
        self.observer.seeds_filtered(labels, separations)
        return labels, dual_labels

    def filter_for_phase2(self) -> None:
        """Keep for each model the labels that its Phase I calls clean."""
        models = {name: peer.prompted() for name, peer in self.peers.items()}
        features = self.pair.labeller.encode(models, 1, self.epoch)
        predictions = {}
        for name, scores in self.pair.labeller.classify(models, features).items():
            label = self.peers[name].seeds.label
            own = predict(*scores, 0.0, "raw", world=self.runtime.world)
            predictions[name] = replace(own, label=label)
            clean = PseudoLabels.of_pool(label, own.p_clean(label) > 0.5)
            self.peers[name].take_labels(keep_best(clean, own.p_clean(label), self.min_kept, self.num_classes))
        labels = {name: peer.labels for name, peer in self.peers.items()}
        self.observer.labelled(predictions, labels)

    def step(self, batch: Batch) -> dict[str, float]:
        """Make one step of each model on its part of a batch."""
        losses = self.pair.step(partial(self.losses, batch))
        self.steps_done += 1
        return losses

    def losses(self, batch: Batch, name: str) -> Losses:
        """CE(l+ + log class frequency, y) by weight, and in Phase I the dual loss with a complement that is drawn."""
        part = batch[name]
        if not len(part["index"]):
            return {}
        index = part.get("batch", part["index"])
        with self.runtime.autocast():
            learner = self.peers[name].learner()
            logits, log_odds = learner.classify(learner.features(part["view"]))
        labels = self.labels[name]
        everything = labels.of(index) if "batch" in part else None
        own = adjusted_cross_entropy(logits, labels.of(part["index"]), self.frequency[name], everything)
        losses = {"loss": (1.0, own)}
        if self.phase(self.epoch) == 1 and self.settings.lambda_dual:
            label = self.dual_labels[name].of(index).label
            source = generator(self.runtime.seed, "complement", name, self.epoch, self.steps_done)
            complement, mine = draw_complement(label, self.num_classes, source), self.runtime.world.part(len(index))
            pair = label[mine].to(logits.device), complement[mine].to(logits.device)
            losses["dual"] = (self.settings.lambda_dual, dual_loss(log_odds.float(), *pair, len(index)))
        return losses

    def end_epoch(self, epoch: int) -> None:
        """Weights have changed: the models that are tested have to be made again."""
        self.tested = {}

    def loaded(self) -> None:
        """Likewise."""
        self.tested = {}

    def predict_each(self, images: Tensor) -> dict[str, Tensor]:
        """Softmax probabilities by each model. Shape (n, C) each."""
        self.tested = self.tested or self.pair.inference_models(1.0)
        return self.pair.predict_each(self.tested, images, "positive")

    def predict(self, images: Tensor) -> Tensor:
        """Log of the mean of the models' probabilities. Shape (n, C)."""
        return log_mean(self.predict_each(images))

    def predictor(self) -> Predictor:
        """What it predicts with, as plain parts; no p_clean, since the negative vectors go with Phase I's encoder."""
        models = self.pair.inference_models(1.0)
        return Predictor({name: finished(model, with_clean=False) for name, model in models.items()})

    def phase(self, epoch: int) -> int:
        """Phase of an epoch, 1 or 2."""
        return 1 if epoch < self.phase1_epochs else 2

    def steps(self, phase: int) -> int:
        """Steps of an epoch: a pass over the images, or in Phase I what `min_steps` asks for."""
        own, everything = self.settings.phase1, self.images.steps(len(self.images))
        return everything if phase == 2 else max(everything, math.ceil(own.min_steps / own.epochs))
