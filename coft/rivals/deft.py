"""DeFT (Wei et al. 2024), a method for noisy labels, applied to zero-shot labels (our reconstruction)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.core.precision import precision_setting
from coft.core.seeding import generator
from coft.core.settings import setting, share
from coft.core.table import Table
from coft.labelling.first_labels import likeliest, zero_shot_logits
from coft.labelling.losses import Term, adjusted_cross_entropy
from coft.labelling.predictor import Predictor, final_classifier
from coft.labelling.protocol import Batch, Encoders, Engine, Observer
from coft.labelling.pseudo_labels import Predictions, PseudoLabels, at_label
from coft.labelling.seeds import top_per_class
from coft.method.peer import Peer
from coft.method.predicting import clean_labels, label_scores, probabilities
from coft.method.two_phases import NAMES, TwoPhases

WARMUP_STEPS = 100  # steps of Phase I before labels are filtered, since the negative prompt has learned nothing yet
MIN_AUC = 0.9  # labels are filtered only if the AUC with which d separates them from other classes is above this
MIN_KEPT = 4  # labels of each class that always have weight 1; at most a quarter of N / C, rounded up


@dataclass(frozen=True)
class Phase1:
    """Parameter-efficient tuning."""

    epochs: int = setting(10, "epochs of Phase I", at_least=1)
    min_steps: int = setting(300, "steps of Phase I, at least; an epoch is a pass over the images", at_least=0)


@dataclass(frozen=True)
class Phase2:
    """Full fine-tuning on the clean labels."""

    epochs: int = setting(10, "epochs of Phase II", at_least=1)
    lr: float = setting(1e-5, "learning rate of the image encoders; the heads have ten times as much", at_least=0.0)
    ema: float = share(0.99, "decay of the EMA weights, which are evaluated")


@dataclass(frozen=True)
class DeFTSettings:
    """Settings of DeFT."""

    prec: str = precision_setting()
    n_ctx: int = setting(16, "random context tokens; 0: the words of the data set's template", at_least=0)
    visual: str = setting("auto", "light visual module of Phase I; auto: vpt-deep for a ViT, else norms-and-biases")
    phase1: Phase1 = field(default_factory=Phase1)
    phase2: Phase2 = field(default_factory=Phase2, metadata={"phase2": True})


class DeFT(TwoPhases):
    """Two independent models whose probabilities are averaged. Every image has its zero-shot label.

    In Phase I, each model tunes prompts and a light visual module on the labels that it considers clean, sigmoid(d) >
    1/2. In Phase II, pre-trained weights are fine-tuned on the labels that the model of Phase I considers clean.

    Unlike the published method: labels that a model considers unclean are replaced by its own predictions in the dual
    loss, logits are adjusted by class frequencies, the labels of each class with the highest scores are always kept,
    labels are filtered only once d separates them from other classes, and warm-up is counted in steps, as in CoFT; in
    Phase II the classifier starts from the tuned prompts, and a moving average of the weights is tested.

    Args:
        engine: The engine that runs the method.
        settings: DeFT settings.
        observer: Callbacks on pseudo-labels.
    """

    settings: DeFTSettings

    def __init__(self, engine: Engine, settings: DeFTSettings, observer: Observer | None = None) -> None:
        super().__init__(engine, settings, observer)
        per_class = max(1, round(self.num_images / self.num_classes))
        self.min_kept = min(MIN_KEPT, math.ceil(per_class / 4))
        self.dual: dict[str, Tensor] = {}  # labels in the dual loss, of all images

    def make_peer(self, name: str) -> Peer:
        """Build a model, whose negative prompt starts next to the positive one, so that every d starts near 0."""
        peer = Peer(*self.parts_of(name), ema_decay=self.settings.phase2.ema)
        nn.init.zeros_(peer.negative_residual)
        return peer

    def enter(self, phase: int) -> None:
        """Move all models to a phase; full fine-tuning starts from the pre-trained encoder."""
        for peer in self.peers.values():
            peer.set_phase(phase, self.engine.clip.visual)

    def prompted_encoders(self) -> Encoders:
        """Return the image encoders of Phase I."""
        return {name: peer.encode_as_prompted for name, peer in self.peers.items()}

    # ---------------------------------------------------------------- labels

    def begin(self) -> None:
        """Give every image its zero-shot label."""
        clip = self.engine.clip
        label = likeliest(zero_shot_logits(self.engine.clip_features(), clip.zero_shot_text(), clip.scale))
        self.labels = dict.fromkeys(NAMES, PseudoLabels.of_pool(label))
        self.observer.seeds_chosen(self.labels[NAMES[0]], label, torch.zeros(self.num_classes, dtype=torch.long))

    def prepare(self, epoch: int) -> None:
        """Filter the labels: in each epoch of Phase I, and once for Phase II, by the models of Phase I."""
        if self.phase(epoch) == 1:
            self.filter_in_phase1()
        elif epoch == self.phase1_epochs:
            self.filter_for_phase2()

    def filter_in_phase1(self) -> None:
        """Filter each model's labels by its own d; in the dual loss, its predictions replace unclean labels."""
        self.labels = {name: PseudoLabels.of_pool(each.label) for name, each in self.labels.items()}
        self.dual = {name: each.label for name, each in self.labels.items()}
        if self.epoch * self.steps(1) >= WARMUP_STEPS:
            for name, features in self.engine.encode(self.prompted_encoders).items():
                model, labels = final_classifier(self.peers[name].prompted()), self.labels[name]
                log_odds = model.log_odds(features)
                if separation(log_odds, labels.label) > MIN_AUC:
                    score = at_label(log_odds, labels.label)
                    labels = self.weigh(labels, score.sigmoid() > 0.5, score)
                self.labels[name] = labels
                self.dual[name] = torch.where(labels.keep, labels.label, likeliest(model.logits(features)))
        self.observer.seeds_filtered(self.labels)

    def weigh(self, labels: PseudoLabels, clean: Tensor, score: Tensor) -> PseudoLabels:
        """Give weight 1 to clean labels and to the best few of each class. Shape (N,) each."""
        return keep_best(labels.with_weights(clean), score, self.min_kept, self.num_classes)

    def filter_for_phase2(self) -> None:
        """Keep the labels that each model of Phase I considers clean."""
        predictions, labels = {}, {}
        for name, features in self.engine.encode(self.prompted_encoders).items():
            label, model = self.labels[name].label, final_classifier(self.peers[name].prompted())
            softmax = probabilities(label_scores(features, model, tau=0.0))
            prediction = Predictions(label, softmax, clean_labels(features, model, 0.0, "sigmoid"))
            predictions[name] = prediction
            score = prediction.p_clean(label)
            labels[name] = self.weigh(PseudoLabels.of_pool(label), score > 0.5, score)
        self.labels = labels
        self.observer.labelled(predictions, labels, {name: name for name in labels})

    # ---------------------------------------------------------------- a step

    def loss(self, name: str, batch: Batch) -> dict[str, Term]:
        """Compute weighted CE(l+ + log class frequency, y), in Phase I plus the dual loss with a random complement.

        Gradients of the dual loss stop at the image features.
        """
        learner = self.peers[name].learner()
        features = learner.features(batch.views)
        logits, _ = learner.classify(features)
        losses = {"loss": adjusted_cross_entropy(logits, batch.labels, batch.whole, batch.log_frequency)}
        if self.phase(self.epoch) == 1:
            _, log_odds = learner.classify(features.detach())
            label = self.dual[name][batch.whole.index]
            source = generator(self.engine.seed, "complement", name, self.epoch, batch.number)
            complement = draw_complement(label, self.num_classes, source)
            pair = (x[batch.position].to(logits.device) for x in (label, complement))
            losses["dual"] = Term(drawn_dual_loss(log_odds.float(), *pair).sum(), len(batch.whole.index))
        return losses

    # ---------------------------------------------------------------- the end

    @torch.no_grad()
    def predictor(self) -> Predictor:
        """Return the predictor, without p_clean, since the negative vectors belong to the encoder of Phase I."""
        classifiers = {name: final_classifier(peer.teacher()) for name, peer in self.peers.items()}
        return Predictor({name: replace(part, clean=None) for name, part in classifiers.items()})

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with the labels in the dual loss."""
        return super().state_dict() | {"dual": self.dual}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the result of `state_dict`."""
        super().load_state_dict(state)
        self.dual = dict(state["dual"])


def drawn_dual_loss(log_odds: Tensor, label: Tensor, complement: Tensor) -> Tensor:
    """Compute L_dual(x, y, z) = -log sigmoid(d(x, y)) - log sigmoid(-d(x, z)) of each image (Algorithm 1 of DeFT).

    Args:
        log_odds: d of every class. Shape (n, C).
        label: The label in use, y. Shape (n,).
        complement: A class other than y for each image, z. Shape (n,).

    Returns:
        Loss of each image. Shape (n,).
    """
    at = [log_odds.gather(1, each.unsqueeze(1)).squeeze(1) for each in (label, complement)]
    return -(F.logsigmoid(at[0]) + F.logsigmoid(-at[1]))


def draw_complement(label: Tensor, num_classes: int, source: torch.Generator) -> Tensor:
    """Draw z uniformly over the classes other than the label. Shape (n,), on the device of `label`."""
    shift = torch.randint(1, num_classes, label.shape, generator=source).to(label.device)
    return (label + shift) % num_classes


def keep_best(labels: PseudoLabels, score: Tensor, at_least: int, num_classes: int) -> PseudoLabels:
    """Give weight 1 to the best few labels of each class, so that no class is left without images.

    Args:
        labels: Filtered labels.
        score: Score by which labels are kept, highest first. Shape (n,).
        at_least: Number of labels of each class to keep, or all if a class has fewer.
        num_classes: C.

    Returns:
        The labels with new weights. Ties go to the lower index.
    """
    best, _ = top_per_class(score, labels.label, torch.full((num_classes,), at_least))
    return labels.with_weights(labels.weight.index_fill(0, best, 1.0))


def separation(log_odds: Table, label: Tensor) -> float:
    """Measure how well d separates the label in use from other classes: AUC over all pairs of d(x, y) and d(x', z).

    Args:
        log_odds: d of every class. Shape (n, C).
        label: The label in use. Shape (n,).

    Returns:
        Area under the ROC curve, in [0, 1].
    """
    columns = label.unsqueeze(1)
    in_use = log_odds.map(lambda rows, at: rows.gather(1, at), columns).all().squeeze(1).sort().values

    def lost(rows: Tensor, at: Tensor) -> Tensor:
        """Count pairs in which another class of an image is above a label in use; ties are half. Shape (n, 1)."""
        places = [torch.searchsorted(in_use, rows.contiguous(), right=right).double() for right in (False, True)]
        return torch.stack(places).sum(dim=0).scatter(1, at, 0.0).sum(dim=1, keepdim=True) / 2

    pairs = float(log_odds.map(lost, columns).all().sum())
    others = log_odds.at(torch.zeros(1, dtype=torch.long)).shape[1] - 1
    return 1 - pairs / (len(in_use) ** 2 * others)
