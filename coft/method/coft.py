"""CoFT: collaborative fine-tuning without a label (arXiv 2602.04337; our reconstruction, see docs/method.md).

Read `CoFT` from top to bottom: which labels there are (seeds, Phase I, Phase II), the loop that trains on them,
prediction.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .classifier import HEADS, Classifier
from .errors import MethodError
from .filters import ALONE, FILTERS, HARD, Filter, SeedFilter, probability, weigh_seeds, with_minimum
from .guard import LEAST_INFORMATION, LEAST_SKILL, knowledge
from .labeller import SCORES, Scores, best_class, clean_, first_features, first_logits, predict, zero_shot_logits
from .losses import adjusted_cross_entropy, log_mean
from .negative_prompt import CLEAN_RULES, expected_dual_loss, separation
from .neighbours import NeighbourGraph, neighbour_count
from .optimizers import Schedule, cosine, light_optimizer
from .pair import PARTNERS, Losses, MakeOptimizer, Pair
from .peer import Peer
from .predictor import FinalClassifier, Predictor, finished
from .protocol import Backbone, Batch, Images, Method, Observer, Part, Runtime
from .pseudo_labels import Predictions, PseudoLabels, correct_prior_, given_quotas, seed_quota, select_seeds
from .settings import setting, share

PRECISIONS = ("fp32", "bf16", "bf16-predict", "fp16", "amp", "auto")
log = logging.getLogger(__name__)
WARMUP_STEPS = 100  # of Phase I before seeds are filtered: until then the negative prompt has learned nothing
MIN_AUC = 0.9  # nor are they filtered while d separates the seeds' labels from other classes by no more than this
MIN_KEPT = 4  # labels of each class that always count in full, but at most a quarter of its seeds, rounded up


@dataclass(frozen=True)
class Phase1:
    """Parameter-efficient tuning on the seeds."""

    epochs: int = setting(10, "epochs of Phase I", at_least=1)
    min_steps: int = setting(300, "steps of Phase I, at least; an epoch is a pass over the seeds", at_least=0)


@dataclass(frozen=True)
class Phase2:
    """Full fine-tuning of the image encoders on pseudo-labels of all images."""

    epochs: int = setting(10, "epochs of Phase II", at_least=1)
    lr: float = setting(1e-5, "learning rate of the image encoders; the heads have ten times as much", at_least=0.0)
    refresh: int = setting(2, "epochs between two labellings of all images", at_least=1)
    ema: float = share(0.99, "decay of the moving average that labels and is tested")
    wise: float = share(0.5, "share of Phase II in the weights that are tested (WiSE-FT); 1: Phase II alone")


@dataclass(frozen=True)
class CoFTSettings:
    """Settings of CoFT."""

    prec: str = setting(
        "fp32",
        "precision of the forward pass; bf16-predict: steps in fp32, predictions in bf16; auto: what is faster",
        choices=PRECISIONS,
    )
    n_ctx: int = setting(0, "random context tokens; 0: the words of the data set's template", at_least=0)
    visual: str = setting("auto", "light visual module of Phase I; auto: vpt-deep for a ViT, else norms-and-biases")
    seeds_per_class: int = setting(16, "seeds of each class for each peer, at most", at_least=1)
    seeds_share: float = setting(0.5, "seeds of both peers, at most so much of the images of a class", above=0.0)
    prior_tau: float = setting(0.5, "strength of the correction against rarely predicted classes", at_least=0.0)
    label_views: int = setting(3, "views of an image that a pseudo-label is the mean of", at_least=1)
    clean_rule: str = setting("coupled", "how d becomes p_clean", choices=tuple(CLEAN_RULES))
    class_negative: bool = setting(True, "a negative vector of each class's own beside the negative prompt")
    classify: str = setting("joint", "class by both prompts, or the positive one alone", choices=tuple(SCORES))
    filter: str = setting("both", "pseudo-label filter of Phase II", choices=tuple(FILTERS))
    lambda_dual: float = setting(1.0, "weight of the dual loss in Phase I; 0: no negative prompt", at_least=0.0)
    neg_grad_to_visual: bool = setting(True, "the dual loss trains the light visual module, too")
    phase1: Phase1 = field(default_factory=Phase1)
    phase2: Phase2 = field(default_factory=Phase2)


class CoFT(Method):
    """Two peers: Phase I tunes prompts and a light visual module on seeds, Phase II the encoders on filtered labels.

    Epochs of both phases are counted through. The models are `peer_a` and `peer_b`; each is the other's partner.

    Args:
        images: The unlabeled images.
        backbone: CLIP for the classes at hand.
        settings: See `CoFTSettings`.
        runtime: Where and how to compute.
        observer: Sees what is done with pseudo-labels.
        make_optimizer: Makes the optimizer of Phase I from its parameters.
        filter: In the place of the pseudo-label filter that the settings name. It is used as it is; of the settings'
            filter the best few labels of each class count in any case (`with_minimum`).
        seed_filter: In the place of `weigh_seeds`.
        choose_seeds: In the place of `select_seeds`: from logits of all images, and a number for each class.
        schedule: Of the learning rates of Phase II.
    """

    rounds = 1  # of the choice of seeds and Phase I

    def __init__(
        self,
        images: Images,
        backbone: Backbone,
        settings: CoFTSettings,
        runtime: Runtime,
        observer: Observer | None = None,
        *,
        make_optimizer: MakeOptimizer = light_optimizer,
        filter: Filter | None = None,
        seed_filter: SeedFilter | None = None,
        choose_seeds: Callable[[Tensor, int | Tensor], PseudoLabels] | None = None,
        schedule: Schedule = cosine,
    ) -> None:
        super().__init__()
        own, self.num_classes = settings, len(backbone.classnames)
        self.images, self.backbone, self.settings, self.runtime = images, backbone, settings, runtime
        self.observer, self.choose_seeds = (
            observer or Observer(),
            choose_seeds or partial(select_seeds, world=runtime.world),
        )
        self.per_peer = seed_quota(len(images), self.num_classes, own.seeds_per_class, own.seeds_share)
        min_kept = min(MIN_KEPT, math.ceil(self.per_peer / 4))
        self.filter = filter or with_minimum(FILTERS[own.filter], min_kept)
        self.seed_filter = seed_filter or partial(
            weigh_seeds, clean_rule=own.clean_rule, at_least=min_kept, hard=own.filter in HARD
        )
        self.phase1_epochs = self.rounds * own.phase1.epochs
        self.epochs, self.epoch = self.phase1_epochs + own.phase2.epochs, 0
        steps = {1: self.steps(1) * own.phase1.epochs, 2: self.steps(2) * own.phase2.epochs}
        self.pair = Pair(images, backbone, runtime, own, steps, make_optimizer, self.make_peer, schedule)
        self.labeller, self.peers = self.pair.labeller, self.pair.peers
        self.models = dict(self.peers)
        self.optimizers, self.schedulers = self.pair.optimizers, self.pair.schedulers
        self.labels: dict[str, PseudoLabels] = {}  # what each peer is trained on in this epoch
        self.dual_labels: dict[str, PseudoLabels] = {}  # likewise, for the dual loss of Phase I
        self.frequency: dict[str, Tensor] = {}  # log frequency of the classes in `labels`
        self.tested: dict[str, Classifier] = {}

    # ---------------------------------------------------------------- seeds

    def begin(self) -> None:
        """Choose the seeds by zero-shot probabilities, with the prior corrected, spread among neighbours."""
        own = self.settings
        self.look_at_classes()
        args = self.images, self.backbone, self.zero_shot_text(), self.runtime, own.label_views, own.prior_tau
        logits = first_logits(*args)
        self.share_seeds(logits, given_quotas(logits, own.seeds_share, 2 * self.per_peer, self.runtime.world))

    def look_at_classes(self) -> None:
        """Train nothing where CLIP hardly knows the classes: wrong names would only be learned by heart."""
        if not self.runtime.guard or self.num_classes < 2:
            return
        features = first_features(self.images, self.backbone, self.runtime, self.settings.label_views)
        text, scale = self.backbone.zero_shot_text(), self.backbone.scale
        known = knowledge(zero_shot_logits(features, text, scale, self.runtime), self.runtime.world)
        for peer in self.peers.values():
            peer.trains = not known.hardly_any
        if known.hardly_any:
            log.warning(
                "CLIP hardly knows these classes: its skill, as it sees it, is %.2f (least: %.2f), and an image "
                "tells it %.2f of a class (least: %.2f). So nothing is trained, and zero-shot CLIP is kept. Give names "
                "that it knows, or another backbone; TRAIN.GUARD False trains all the same",
                *(known.skill, LEAST_SKILL, known.information, LEAST_INFORMATION),
            )

    @property
    def trains(self) -> bool:
        """Whether anything is trained; see `look_at_classes`."""
        return all(peer.trains for peer in self.peers.values())

    def share_seeds(self, logits: Tensor, per_class: int | Tensor) -> None:
        """Give the surest images of each class to the peers, by turns.

        Args:
            logits: Of all images, corrected. Shape (N, C).
            per_class: How many of each class, for both peers together: one number, or shape (C,).

        Raises:
            MethodError: If a peer gets none.
        """
        seeds = self.choose_seeds(logits, per_class)
        for start, peer in enumerate(self.peers.values()):
            share = seeds.of_classes(slice(start, None, 2), self.num_classes)
            if not len(share.index):
                raise MethodError(f"{len(self.images)} images are too few for seeds of two peers; take more images")
            peer.take_seeds(share)
        if self.phase(self.epoch) == 1:
            self.observer.seeds_chosen(seeds, logits, torch.as_tensor(per_class).expand(self.num_classes))

    # ---------------------------------------------------------------- Phase I

    def filter_seeds(self) -> None:
        """Let each peer weigh the seeds of its partner, once it can tell right from wrong ones.

        Where a seed is more likely wrong, the dual loss has the partner's prediction in its place.
        """
        self.labels = {name: peer.seeds for name, peer in self.peers.items()}
        self.dual_labels = {name: PseudoLabels.certain(own.index, own.label) for name, own in self.labels.items()}
        separations = []
        if (self.epoch % self.settings.phase1.epochs) * self.steps(1) >= WARMUP_STEPS:
            seen = {partner: self.peers[name].seeds.index for name, partner in PARTNERS.items()}
            scores = self.labeller.score_own(self.pair.teachers(), seen, self.epoch)
            for name, partner in PARTNERS.items():
                seeds, (logits, log_odds) = self.peers[name].seeds, scores[partner]
                separations.append(separation(log_odds, seeds.label))
                self.labels[name] = self.seed_filter(seeds, log_odds, separations[-1] > MIN_AUC)
                predicted = best_class(logits, log_odds, self.settings.classify)
                dual = torch.where(self.labels[name].keep, seeds.label, predicted)
                self.dual_labels[name] = PseudoLabels.certain(seeds.index, dual)
        self.observer.seeds_filtered(self.labels, separations)

    # ---------------------------------------------------------------- Phase II

    def relabel(self) -> None:
        """Label all images with the averaged peers, and filter what each peer is trained on.

        Raises:
            MethodError: If the filter keeps no label.
        """
        features = self.labeller.encode(self.pair.teachers(), self.settings.label_views, self.epoch)
        predictions = self.predictions(self.labeller.classify(self.pair.teachers(), features))
        if self.fits_negatives:
            self.fit_to_predictions(features, predictions)
        for name, partner in PARTNERS.items():
            labels = self.filter(predictions[name], predictions[partner])
            if not labels.weight.any():
                raise MethodError("the pseudo-label filter keeps no label; choose another filter")
            self.peers[name].take_labels(labels)
        self.observer.labelled(predictions, {name: peer.labels for name, peer in self.peers.items()})

    def fit_to_predictions(self, features: Mapping[str, Tensor], predictions: dict[str, Predictions]) -> None:
        """Fit each teacher's negative vectors to its partner's labels of all images; its p_clean is then of these.

        A label counts as much as both peers' softmax believe it. With a filter of `ALONE`, a peer takes its own labels.

        Args:
            features: Of all images, by peer. Shape (N, embed_dim) each.
            predictions: By peer; p_clean is replaced.
        """
        alone = self.settings.filter in ALONE
        sources = {name: predictions[name if alone else partner] for name, partner in PARTNERS.items()}
        labels = {name: probability(predictions[name], source) for name, source in sources.items()}
        self.pair.fit_negatives(self.pair.teachers(), labels, self.settings.label_views, self.epoch, features)
        for name, (_, log_odds) in self.labeller.classify(self.pair.teachers(), features).items():
            clean = clean_(log_odds, self.settings.prior_tau, self.settings.clean_rule, self.runtime.world)
            predictions[name] = replace(predictions[name], clean=clean)

    def ensemble(self, scores: Sequence[Scores]) -> Tensor:
        """Log of the mean of some peers' probabilities, its prior corrected. Shape (N, C), fp64."""
        mean = self.labeller.mean_log_probabilities([logits for logits, _ in scores])
        return correct_prior_(mean, self.settings.prior_tau, self.runtime.world)

    def predictions(self, scores: Mapping[str, Scores]) -> dict[str, Predictions]:
        """Each peer's predictions for all images, from its scores, in place.

        As long as the encoders have learned from the seeds alone, labels spread among neighbours. Later they know more
        than the frozen CLIP, whose features make the neighbours.
        """
        graph = self.neighbours() if self.epoch <= self.phase1_epochs else None
        own, runtime = self.settings, self.runtime
        rest = partial(predict, graph=graph, allocate=runtime.allocate, world=runtime.world)
        return {name: rest(*scores[name], own.prior_tau, own.clean_rule) for name in PARTNERS}

    def neighbours(self) -> NeighbourGraph:
        """The graph of images that are alike to the frozen CLIP."""
        features = first_features(self.images, self.backbone, self.runtime, self.settings.label_views)
        with self.runtime.timed("labelling"):
            count = neighbour_count(len(self.images), self.num_classes)
            return NeighbourGraph(features, count, world=self.runtime.world)

    # ---------------------------------------------------------------- the loop

    def begin_epoch(self, epoch: int) -> Sequence[Batch]:
        """Phase I: weigh the seeds. Phase II: label all images anew, when it is due. Then draw the batches."""
        self.epoch, self.tested = epoch, {}
        self.pair.enter(self.phase(epoch))
        if self.phase(epoch) == 1:
            self.filter_seeds()
        else:
            if (epoch - self.phase1_epochs) % self.settings.phase2.refresh == 0:
                self.relabel()
            self.labels = {name: peer.labels.weighted() for name, peer in self.peers.items()}
        self.frequency = {name: labels.log_frequency(self.num_classes) for name, labels in self.labels.items()}
        if not self.trains:
            return ()
        return self.draw_batches("weak" if self.phase(epoch) == 1 else "strong")

    def step(self, batch: Batch) -> dict[str, float]:
        """Make one step of each peer on its part of a batch."""
        return self.pair.step(partial(self.losses, batch))

    def losses(self, batch: Batch, name: str) -> Losses:
        """Losses of a peer on its part of a batch."""
        part = batch[name]
        if not len(part["index"]):
            return {}
        with self.runtime.autocast():
            learner = self.peers[name].learner()
            features = learner.features(part["view"].to(self.runtime.device))
        return self.label_losses(name, learner, features, part)

    def label_losses(self, name: str, learner: Classifier, features: Tensor, part: Part) -> Losses:
        """CE(l+ + log class frequency, y), weighted, and in Phase I the dual loss.

        Args:
            name: The peer's.
            learner: Its model.
            features: Of some of its images. Shape (n, embed_dim).
            part: Which ones.
        """
        index, batch = part["index"], part.get("batch")
        with self.runtime.autocast():
            logits, log_odds = learner.classify(features)
        labels, frequency = self.labels[name], self.frequency[name]
        everything = None if batch is None else labels.of(batch)
        losses = {"loss": (1.0, adjusted_cross_entropy(logits, labels.of(index), frequency, everything))}
        if self.phase(self.epoch) == 1 and self.settings.lambda_dual:
            dual, count = (
                self.dual_labels[name].of(index).label.to(features.device),
                None if batch is None else len(batch),
            )
            losses["dual"] = (self.settings.lambda_dual, expected_dual_loss(log_odds.float(), dual, count=count))
        return losses

    def end_epoch(self, epoch: int) -> None:
        """Fit the negative vectors at the end of each phase."""
        self.tested = {}
        if epoch + 1 == self.epochs:
            self.fit_to_labels()
        elif self.phase(epoch) == 1 and (epoch + 1) % self.settings.phase1.epochs == 0:
            self.fit_to_seeds()

    # ---------------------------------------------------------------- the negative vectors

    @property
    def fits_negatives(self) -> bool:
        """Whether negative vectors are fitted to what they tell apart, instead of trained alone."""
        return bool(self.settings.class_negative and self.settings.lambda_dual)

    def fit_to_seeds(self) -> None:
        """Fit each teacher's negative vectors to its surest seeds of each class: as many as it had at first."""
        if not self.fits_negatives:
            return
        seeds = {n: peer.seeds.of_classes(slice(self.per_peer), self.num_classes) for n, peer in self.peers.items()}
        self.pair.fit_negatives(self.pair.teachers(), seeds, self.settings.label_views, self.epoch)

    def fit_to_labels(self) -> None:
        """Fit the inference models' negative vectors to the last labels, with all classes at equal weight.

        The logits l+ are trained with log frequencies added and tested without; d must not bring them back.
        """
        if not self.fits_negatives:
            return
        balanced = {}
        for name, labels in self.labels.items():
            weight = labels.weight.float() * torch.exp(-self.frequency[name][labels.label])
            balanced[name] = PseudoLabels(labels.index, labels.label, weight)
        self.pair.fit_negatives(self.inference_models(), balanced, 1, self.epoch)

    # ---------------------------------------------------------------- prediction

    def predict_each(self, images: Tensor) -> dict[str, Tensor]:
        """Softmax probabilities by each peer, or twice those of zero-shot CLIP. Shape (n, C) each."""
        if not self.trains:
            return dict.fromkeys(self.peers, self.zero_shot().probabilities(images))
        self.tested = self.tested or self.prediction_models()
        return self.pair.predict_each(self.tested, images, self.settings.classify)

    def predict(self, images: Tensor) -> Tensor:
        """Log of the mean of the peers' probabilities. Shape (n, C)."""
        return log_mean(self.predict_each(images))

    @torch.no_grad()
    def predictor(self) -> Predictor:
        """What it predicts with, as plain parts."""
        own = self.settings
        if not self.trains:
            return Predictor({"zero_shot": self.zero_shot()})
        classifiers = {name: finished(model) for name, model in self.prediction_models().items()}
        return Predictor(classifiers, own.classify, own.clean_rule if own.lambda_dual else "")

    def zero_shot(self) -> FinalClassifier:
        """CLIP as it came."""
        text = self.backbone.zero_shot_text().to(self.runtime.device)
        return FinalClassifier(self.backbone.visual, text, None, self.backbone.scale)

    def inference_models(self) -> dict[str, Classifier]:
        """The models that are tested. Negative vectors that were fitted are not averaged: they fit no average."""
        return self.pair.inference_models(HEADS[:1] if self.fits_negatives else HEADS)

    def loaded(self) -> None:
        """Weights were loaded from a checkpoint: the models that are tested have to be made again."""
        self.tested = {}

    # ---------------------------------------------------------------- what CoFT+ changes

    def prediction_models(self) -> dict[str, Classifier]:
        """The models that predict: those that are tested."""
        return self.inference_models()

    def zero_shot_text(self) -> Tensor:
        """Text features that choose the first seeds. Unit length, shape (C, embed_dim)."""
        return self.backbone.zero_shot_text()

    def make_peer(self, name: str, *parts: Any) -> Peer:
        """Build a peer from its prompts, encoder, scale and identity."""
        return Peer(*parts, **self.peer_options)

    @property
    def peer_options(self) -> dict[str, Any]:
        """Settings of a peer."""
        own, runtime = self.settings, self.runtime
        options = {"negative_to_visual": own.neg_grad_to_visual, "class_negative": own.class_negative}
        return options | {"ema_decay": own.phase2.ema, "micro_batch": runtime.micro_batch, "compiler": runtime.compiler}

    def draw_batches(self, view: str) -> Sequence[Batch]:
        """Batches of an epoch: for each peer the images that it is trained on."""
        index = {name: labels.index for name, labels in self.labels.items()}
        return self.images.batches(view, index, self.steps(self.phase(self.epoch)), self.runtime.seed, self.epoch)

    # ---------------------------------------------------------------- counting

    def phase(self, epoch: int) -> int:
        """Phase of an epoch, 1 or 2."""
        return 1 if epoch < self.phase1_epochs else 2

    def steps(self, phase: int) -> int:
        """Steps of an epoch: a pass over the seeds (but `min_steps` in all), or over the images."""
        if phase == 2:
            return self.images.steps(len(self.images))
        own = self.settings.phase1
        seeds = min(self.per_peer * self.num_classes, len(self.images))  # a class may have no image
        return max(self.images.steps(seeds), math.ceil(own.min_steps / own.epochs))
