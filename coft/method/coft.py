"""CoFT: collaborative fine-tuning without a label (arXiv 2602.04337; our reconstruction, see docs/method.md).

Read `CoFT` from top to bottom: which labels there are (seeds, Phase I, Phase II), the loop that trains on them,
prediction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from coft.core.method_errors import MethodError
from coft.labelling.classifier import HEADS, Classifier
from coft.labelling.losses import adjusted_cross_entropy, log_mean
from coft.labelling.neighbours import NeighbourGraph
from coft.labelling.predictor import FinalClassifier, Predictor, finished
from coft.labelling.pseudo_labels import Predictions, PseudoLabels, given_quotas, seed_quota, select_seeds

from .coft_settings import CoFTSettings
from .filters import FILTERS, HARD, Filter, SeedFilter, weigh_seeds, with_minimum
from .guard import hardly_knows
from .labeller import Scores, best_class, first_logits, first_neighbours, predict
from .negative_prompt import expected_dual_loss, separation
from .negatives import NegativeVectors
from .optimizers import Schedule, cosine, light_optimizer
from .pair import PARTNERS, Losses, MakeOptimizer, Pair
from .peer import Peer
from .protocol import Backbone, Batch, Images, Method, Observer, Part, Runtime

WARMUP_STEPS = 100  # of Phase I before seeds are filtered: until then the negative prompt has learned nothing
MIN_AUC = 0.9  # nor are they filtered while d separates the seeds' labels from other classes by no more than this
MIN_KEPT = 4  # labels of each class that always count in full, but at most a quarter of its seeds, rounded up


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

    rounds = 1  # of Phase II

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
        self.observer = observer or Observer()
        self.choose_seeds = choose_seeds or partial(select_seeds, world=runtime.world)
        self.per_peer = seed_quota(len(images), self.num_classes, own.seeds_per_class, own.seeds_share)
        min_kept = min(MIN_KEPT, math.ceil(self.per_peer / 4))
        self.filter = filter or with_minimum(FILTERS[own.filter], min_kept)
        self.seed_filter = seed_filter or partial(
            weigh_seeds, clean_rule=own.clean_rule, at_least=min_kept, hard=own.filter in HARD
        )
        self.phase1_epochs, phase2_epochs = own.phase1.epochs, self.rounds * own.phase2.epochs
        self.epochs, self.epoch = self.phase1_epochs + phase2_epochs, 0
        steps = {1: self.steps(1) * self.phase1_epochs, 2: self.steps(2) * phase2_epochs}
        self.pair = Pair(images, backbone, runtime, own, steps, make_optimizer, self.make_peer, schedule)
        self.negatives = NegativeVectors(self.pair, own)
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
        args = self.backbone, self.zero_shot_text(), self.images, self.runtime, self.settings.label_views
        if self.runtime.guard and hardly_knows(*args):
            for peer in self.peers.values():
                peer.trains = False

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
                few = f"{len(self.images)} images are too few for seeds of two peers"
                raise MethodError(f"{few}; take more images, or a larger SEEDS_SHARE")
            peer.take_seeds(share)
        self.observer.seeds_chosen(seeds, logits, torch.as_tensor(per_class).expand(self.num_classes))

    # ---------------------------------------------------------------- Phase I

    def filter_seeds(self) -> None:
        """Let each peer weigh the seeds of its partner, once it can tell right from wrong ones.

        Where a seed is more likely wrong, the dual loss has the partner's prediction in its place.
        """
        self.labels = {name: peer.seeds for name, peer in self.peers.items()}
        self.dual_labels = {name: PseudoLabels.certain(own.index, own.label) for name, own in self.labels.items()}
        separations = []
        if self.epoch * self.steps(1) >= WARMUP_STEPS:
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
        self.negatives.fit_to_predictions(features, predictions, self.epoch)
        for name, partner in PARTNERS.items():
            labels = self.filter(predictions[name], predictions[partner])
            if not labels.weight.any():
                raise MethodError("the pseudo-label filter keeps no label; choose another filter")
            self.peers[name].take_labels(labels)
        self.observer.labelled(predictions, {name: peer.labels for name, peer in self.peers.items()})

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
        return first_neighbours(self.images, self.backbone, self.runtime, self.settings.label_views)

    # ---------------------------------------------------------------- the loop

    def begin_epoch(self, epoch: int) -> Sequence[Batch]:
        """Phase I: weigh the seeds. Phase II: label all images anew, when it is due. Then draw the batches.

        Where nothing is trained, images are labelled once, for people to see.
        """
        self.epoch, self.tested = epoch, {}
        self.pair.enter(self.phase(epoch))
        if not self.trains:
            if epoch == self.phase1_epochs:
                self.relabel()
            return ()
        if self.phase(epoch) == 1:
            self.filter_seeds()
        else:
            own = self.settings.phase2
            if (epoch - self.phase1_epochs) % own.epochs % own.refresh == 0:
                self.relabel()
            self.labels = {name: peer.labels.weighted() for name, peer in self.peers.items()}
        self.frequency = {name: labels.log_frequency(self.num_classes) for name, labels in self.labels.items()}
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
            features = learner.features(part["view"])
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
        if not self.trains:
            return
        if epoch + 1 == self.epochs:
            self.negatives.fit_to_labels(self.inference_models(), self.labels, self.frequency, epoch)
        elif epoch + 1 == self.phase1_epochs:
            self.negatives.fit_to_seeds(epoch)

    # ---------------------------------------------------------------- prediction

    def predict_each(self, images: Tensor) -> dict[str, Tensor]:
        """Softmax probabilities by each peer, or twice those of zero-shot CLIP. Shape (n, C) each."""
        if not self.trains:
            zero_shot = self.zero_shot  # text is encoded in full precision, as elsewhere
            with self.runtime.autocast():
                return dict.fromkeys(self.peers, zero_shot.probabilities(images))
        self.tested = self.tested or self.prediction_models()
        return self.pair.predict_each(self.tested, images, self.settings.classify)

    def predict(self, images: Tensor) -> Tensor:
        """Log of the mean of the peers' probabilities. Shape (n, C)."""
        return log_mean(self.predict_each(images))

    @cached_property
    def zero_shot(self) -> FinalClassifier:
        """CLIP as it came, which is kept where nothing is trained."""
        text = self.zero_shot_text().to(self.runtime.device)
        return FinalClassifier(self.backbone.visual, text, None, self.backbone.scale)

    @torch.no_grad()
    def predictor(self) -> Predictor:
        """What it predicts with, as plain parts."""
        own = self.settings
        if not self.trains:
            return Predictor({"zero_shot": self.zero_shot})
        classifiers = {name: finished(model) for name, model in self.prediction_models().items()}
        return Predictor(classifiers, own.classify, own.clean_rule if own.lambda_dual else "")

    def inference_models(self) -> dict[str, Classifier]:
        """The models that are tested. Negative vectors that were fitted are not averaged: they fit no average."""
        return self.pair.inference_models(self.settings.phase2.wise, HEADS[:1] if self.negatives.fitted else HEADS)

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
        options: dict[str, Any] = {"negative_to_visual": own.neg_grad_to_visual, "class_negative": own.class_negative}
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
