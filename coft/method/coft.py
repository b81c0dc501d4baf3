"""CoFT: collaborative fine-tuning without labels (arXiv 2602.04337; our reconstruction, see docs/method.md).

Read `CoFT` from top to bottom: seeds, Phase I, Phase II, the loss of a step, prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from coft.core.errors import UserError
from coft.core.table import Table
from coft.labelling.batch_labels import BatchLabeller
from coft.labelling.calibration import Belief, Calibration, evenly_spaced
from coft.labelling.classifier import CLEAN_RULES, HEADS, Classifier
from coft.labelling.first_labels import corrected_scores, likeliest, zero_shot_logits
from coft.labelling.losses import Term, adjusted_cross_entropy, fairness_term, weighted_cross_entropy
from coft.labelling.neighbours import NeighbourGraph, neighbour_count
from coft.labelling.predictor import Predictor, final_classifier, zero_shot
from coft.labelling.protocol import Batch, Encoders, Engine, Observer, Stream
from coft.labelling.pseudo_labels import Predictions, PseudoLabels, at_label
from coft.labelling.seeds import SEEDS_SHARE, quotas, seed_quota, select_seeds

from .coft_settings import FITTED, NONE, CoFTSettings
from .filters import FILTERS, OWN, SEED_FILTERS, Filter, SeedFilter, weigh_seeds
from .guard import guard_fires
from .negative_prompt import dual_loss
from .negatives import class_balanced, fit_negatives, rows_getter
from .peer import Peer
from .predicting import clean_labels, label_scores, probabilities
from .two_phases import NAMES, TwoPhases

REFRESH = 2  # all images are relabelled every REFRESH epochs of Phase II
FAIRNESS = 2.0  # weight of the fairness term, times `prior_tau`; by default their product is 1, as in MUST and DPA
PARTNERS = dict(zip(NAMES, reversed(NAMES), strict=True))

SelectSeeds = Callable[[Table, Tensor, int], PseudoLabels]


class CoFT(TwoPhases):
    """Two peers: Phase I tunes prompts and a light visual module on seeds, Phase II the encoders on filtered labels.

    Each peer is the other's partner. They differ in template, random numbers and seeds.

    Args:
        engine: The engine that runs the method.
        settings: CoFT settings.
        observer: Callbacks on pseudo-labels.
        guard: Whether training is skipped if CLIP hardly knows the classes.
        filter: Pseudo-label filter of Phase II. Default: the one that `settings.filter` names.
        seed_filter: Filter of the seeds in Phase I. Default: the counterpart of `settings.filter`.
        select_seeds: Replacement of `coft.labelling.seeds.select_seeds`.
    """

    settings: CoFTSettings

    def __init__(
        self,
        engine: Engine,
        settings: CoFTSettings,
        observer: Observer | None = None,
        *,
        guard: bool = False,
        filter: Filter | None = None,
        seed_filter: SeedFilter | None = None,
        select_seeds: SelectSeeds = select_seeds,
    ) -> None:
        super().__init__(engine, settings, observer)
        self.guard, self.select_seeds = guard, select_seeds
        self.temperatures: dict[str, tuple[float, float]] = {}
        self.mean_temperature = 1.0
        self.batch_labellers: dict[str, BatchLabeller] = {}
        self.per_peer = seed_quota(self.num_images, self.num_classes, settings.seeds_per_class, SEEDS_SHARE)
        self.filter = filter or FILTERS[settings.filter]
        self.seed_filter = seed_filter or SEED_FILTERS.get(settings.filter, weigh_seeds)

    # ---------------------------------------------------------------- seeds

    def begin(self) -> None:
        """Choose the seeds by belief, and let the guard decide whether anything is trained."""
        label = likeliest(self.belief.scores)
        per_class = quotas(label, self.num_classes, SEEDS_SHARE, 2 * self.per_peer)
        seeds = self.select_seeds(self.belief.scores, per_class, self.num_classes)
        self.labels = {name: seeds.alternate(start, self.num_classes) for start, name in enumerate(NAMES)}
        self.trains = not (self.guard and guard_fires(self.zero_shot_logits))
        if self.trains and not all(len(labels.index) for labels in self.labels.values()):
            few = f"{self.num_images} of {self.num_classes} classes"
            raise UserError(f"too few images to choose seeds for two peers: {few}; take at least three of each class")
        self.observer.seeds_chosen(seeds, label, per_class)

    @cached_property
    def zero_shot_logits(self) -> Table:
        """The frozen CLIP's logits of the images. Shape (N, C)."""
        features = self.engine.clip_features(self.settings.label_views)
        return zero_shot_logits(features, self.zero_shot_text(), self.engine.clip.scale)

    @cached_property
    def neighbours(self) -> NeighbourGraph:
        """Neighbour graph of the images, in the frozen CLIP's feature space."""
        features = self.engine.clip_features(self.settings.label_views)
        return NeighbourGraph(features, neighbour_count(self.num_images, self.num_classes))

    @cached_property
    def belief(self) -> Belief:
        """The frozen CLIP's belief about all images, from text, neighbours and Gaussians, by which seeds are chosen."""
        features, tau = self.engine.clip_features(self.settings.label_views), self.settings.prior_tau
        return Belief(*corrected_scores(features, self.zero_shot_logits, tau, self.neighbours))

    @property
    def calibrates(self) -> bool:
        """Whether p_clean and softmax are calibrated: not with the rule "sigmoid"."""
        return self.settings.clean_rule == "softmax"

    # ---------------------------------------------------------------- labels of an epoch

    def prepare(self, epoch: int) -> None:
        """Weight the seeds in Phase I; relabel all images in Phase II if it is due.

        If nothing is trained, images are labelled once, for the report.
        """
        if self.phase(epoch) == 1:
            if self.trains:
                self.filter_seeds()
        elif epoch == self.phase1_epochs or (self.trains and self.is_due(epoch)):
            self.labels = self.label_all()

    def filter_seeds(self) -> None:
        """Weight each peer's seeds by the partner, which was not trained on them."""
        seeds, teachers = self.seeds, self.teachers()
        index = {partner: seeds[name].index for name, partner in PARTNERS.items()}
        features = self.engine.encode_some(self.teacher_encoders, index)
        for name, partner in PARTNERS.items():
            log_odds = final_classifier(teachers[partner]).log_odds(Table.of(features[partner])).all()
            if self.calibrates:
                calibration = Calibration(self.belief, index[partner], seeds[name].label)
                log_odds = log_odds / calibration.temperature(log_odds)
            clean = CLEAN_RULES[self.settings.clean_rule](log_odds)
            of_label = clean.gather(1, seeds[name].label.unsqueeze(1)).squeeze(1)
            self.labels[name] = self.seed_filter(seeds[name], of_label)
        self.observer.seeds_filtered(self.labels)

    @property
    def seeds(self) -> dict[str, PseudoLabels]:
        """Labels of Phase I as they were chosen, all with weight 1."""
        return {name: PseudoLabels.unweighted(labels.index, labels.label) for name, labels in self.labels.items()}

    def label_all(self) -> dict[str, PseudoLabels]:
        """Label all images with the teachers, and filter the labels that each peer is trained on.

        The first time, the encoders have learned from seeds alone, and probabilities spread among neighbours. Later the
        encoders are better than the frozen CLIP, whose features define the neighbours.
        """
        first = not self.trains or self.epoch == self.settings.phase1.epochs
        graph, tau = self.neighbours if first else None, self.settings.prior_tau
        features = self.engine.encode(self.teacher_encoders, self.settings.label_views)
        models = {name: final_classifier(model) for name, model in self.teachers().items()}
        scores = {name: label_scores(features[name], model, tau, graph) for name, model in models.items()}
        labels = {name: likeliest(each) for name, each in scores.items()}
        if self.trains and self.phase(self.epoch) == 2:
            self.batch_labellers = {
                name: BatchLabeller.of_pool(labels[name], features[name], model, tau) for name, model in models.items()
            }
        return self.filter_labels(self.judge(features, scores, labels))

    def judge(
        self, features: Mapping[str, Table], scores: Mapping[str, Table], labels: Mapping[str, Tensor]
    ) -> dict[str, Predictions]:
        """Fit each teacher's negative vectors to its partner's labels, and compute softmax and p_clean.

        Args:
            features: Features of all images by each teacher. Shape (N, embed_dim) each.
            scores: Scores by which they were labelled. Shape (N, C) each.
            labels: Labels by each teacher. Shape (N,) each.
        """
        tau, rule = self.settings.prior_tau, self.settings.clean_rule
        judged = {name: labels[source] for name, source in self.sources.items()}
        calibrations = {
            name: Calibration.of_pool(self.belief, label) for name, label in judged.items() if self.calibrates
        }
        softmax = {name: probabilities(each, calibrations.get(name)) for name, each in scores.items()}
        if self.trains and self.fits_negatives:
            self.fit_to_labels(features, judged, softmax)
        models = {name: final_classifier(model) for name, model in self.teachers().items()}
        clean = {name: clean_labels(features[name], models[name], tau, rule, calibrations.get(name)) for name in NAMES}
        return {name: Predictions(labels[name], softmax[name], clean[name]) for name in NAMES}

    def is_due(self, epoch: int) -> bool:
        """Return whether all images are relabelled in an epoch."""
        return self.phase(epoch) == 2 and (epoch - self.phase1_epochs) % REFRESH == 0

    def filter_labels(self, predictions: Mapping[str, Predictions]) -> dict[str, PseudoLabels]:
        """Filter the predictions of both peers to the labels that each peer is trained on."""
        labels = {name: self.filter(predictions[name], predictions[partner]) for name, partner in PARTNERS.items()}
        if not all(kept.weight.any() for kept in labels.values()):
            raise UserError("the pseudo-label filter gives every label weight 0; choose another filter")
        self.observer.labelled(predictions, labels, self.sources)
        return labels

    @property
    def sources(self) -> dict[str, str]:
        """Name of the peer whose predictions are the labels, by name of the peer that is trained on them."""
        return {name: name if self.settings.filter in OWN else partner for name, partner in PARTNERS.items()}

    # ---------------------------------------------------------------- a step

    def loss(self, name: str, batch: Batch) -> dict[str, Term]:
        """Compute the loss: weighted cross-entropy, with the dual loss in Phase I and fairness in Phase II."""
        learner = self.peers[name].learner()
        if self.phase(self.epoch) == 1:
            return self.seed_loss(learner, batch)
        return self.label_loss(name, learner(batch.views[:, 0])[0], batch)

    def seed_loss(self, learner: Classifier, batch: Batch) -> dict[str, Term]:
        """Compute the loss of Phase I: weighted CE(l+ + log class frequency, y) and the dual loss."""
        logits, log_odds = learner(batch.views)
        losses = {"loss": adjusted_cross_entropy(logits, batch.labels, batch.whole, batch.log_frequency)}
        if self.settings.negative != NONE:
            dual = dual_loss(log_odds.float(), batch.labels.label.to(logits.device))
            losses["dual"] = Term(dual.sum(), len(batch.whole.index))
        return losses

    def label_loss(self, name: str, logits: Tensor, batch: Batch) -> dict[str, Term]:
        """Compute the loss of Phase II: weighted CE(l+, y) with new labels, and the fairness term.

        The mean prediction of a few images says little about the balance of many classes. So the term counts less if
        there are more classes than images.

        Args:
            name: Name of the peer.
            logits: Its logits of the strong views. Shape (n, C).
            batch: Batch with a strong and a weak view of each image.
        """
        losses = {"loss": weighted_cross_entropy(logits, self.relabelled(name, batch), batch.whole)}
        whole = len(batch.whole.index)
        fairness = FAIRNESS * self.settings.prior_tau * min(1.0, whole / self.num_classes)
        return losses | fairness_term(logits.float().softmax(dim=1), whole, fairness, batch.mean_prediction)

    def balances(self, phase: int) -> bool:
        """Return whether the loss of a phase has the fairness term."""
        return phase == 2 and self.settings.prior_tau > 0

    def probability(self, name: str, batch: Batch) -> Tensor:
        """Return the probabilities that a peer predicts for the strong views. Shape (n, C)."""
        return self.peers[name].learner()(batch.views[:, 0])[0].float().softmax(dim=1)

    def relabelled(self, name: str, batch: Batch) -> PseudoLabels:
        """Return a batch's labels, renewed by the EMA of the peer that made them, on weak views.

        Weights stay. So does a label that the filter has changed.
        """
        source, labels = self.sources[name], batch.labels
        labeller = self.batch_labellers[source]
        label = labeller.label_views(self.peers[source].teacher(), batch.views[:, 1]).cpu()
        predicted = labeller.label[labels.index] == labels.label
        return replace(labels, label=torch.where(predicted, label, labels.label))

    def views(self, phase: int) -> Sequence[str]:
        """Return the kinds of views of an image: a weak one in Phase I, a strong and a weak one in Phase II."""
        return ["weak"] if phase == 1 else ["strong", "weak"]

    # ---------------------------------------------------------------- negative vectors

    def finish(self, epoch: int) -> None:
        """Fit the negative vectors to the last labels after the last epoch, and calibrate the tested models."""
        if not (self.trains and epoch + 1 == self.epochs and (self.fits_negatives or self.calibrates)):
            return
        index = evenly_spaced(self.num_images)
        features = self.engine.encode_some(self.inference_encoders, dict.fromkeys(NAMES, index))
        if self.fits_negatives:
            kept = {name: labels.nonzero() for name, labels in self.labels.items()}
            encode: Any = partial(self.engine.encode_some, self.inference_encoders)
            if len(index) == self.num_images:
                encode = rows_getter({name: Table.of(rows) for name, rows in features.items()})
            self.fit(self.inference_models(), class_balanced(kept, self.num_classes), encode)
        if self.calibrates:
            self.temperatures = self.final_temperatures(index, features)
            self.mean_temperature = self.temperature_of_mean(index, features)

    def fit_to_labels(
        self, features: Mapping[str, Table], labels: Mapping[str, Tensor], softmax: Mapping[str, Table]
    ) -> None:
        """Fit each teacher's negative vectors to labels of all images, weighted by the minimum of both peers' softmax.

        Args:
            features: Features of all images by each teacher. Shape (N, embed_dim) each.
            labels: The labels: those of its partner, or with `filter` "own" its own. Shape (N,) each.
            softmax: Class probabilities by each teacher. Shape (N, C) each.
        """
        weighted = {}
        for name, label in labels.items():
            weights = (at_label(softmax[each], label) for each in (name, self.sources[name]))
            weighted[name] = PseudoLabels.of_pool(label, torch.minimum(*weights))
        self.fit(self.teachers(), weighted, rows_getter(features))

    def fit(self, models: Mapping[str, Classifier], labels: Mapping[str, PseudoLabels], features_of: Any) -> None:
        """Fit the peers' negative vectors to labels; see `fit_negatives`."""
        for name, negative in fit_negatives(self.engine, models, labels, self.epoch, features_of).items():
            self.peers[name].set_negative(negative)

    def final_temperatures(self, index: Tensor, features: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
        """Fit temperatures of logits and log-odds of each tested model.

        Args:
            index: Indices of the images to fit to. Shape (n,).
            features: Features of these images by each model. Shape (n, embed_dim) each.
        """
        temperatures = {}
        for name, model in self.inference_models().items():
            logits, log_odds = final_classifier(model).classify(features[name].to(model.device))
            label = self.batch_labellers[self.sources[name]].label[index]
            fit = Calibration(self.belief, index, label).temperature
            temperatures[name] = fit(logits.cpu()), fit(log_odds.cpu()) if self.settings.negative != NONE else 1.0
        return temperatures

    def temperature_of_mean(self, index: Tensor, features: Mapping[str, Tensor]) -> float:
        """Fit the temperature of the mean of the calibrated models, which is less confident than each of them.

        Its pseudo-labels are its own predictions. For the arguments, see `final_temperatures`.
        """
        predictor = self.predictor()
        scores = predictor.scores([features[name].to(self.engine.device) for name in predictor.classifiers])
        log_p = predictor.log_probabilities(scores).cpu()
        return Calibration(self.belief, index, log_p.argmax(dim=1)).temperature(log_p)

    @property
    def fits_negatives(self) -> bool:
        """Whether negative vectors are fitted to labels, and not only trained."""
        return self.settings.negative == FITTED

    # ---------------------------------------------------------------- models

    def make_peer(self, name: str) -> Peer:
        """Build a peer."""
        return Peer(*self.parts_of(name), **self.peer_options)

    @property
    def peer_options(self) -> dict[str, Any]:
        """Keyword arguments of `Peer`."""
        settings = self.settings
        return {
            "class_negative": settings.negative != "prompt",
            "ema_decay": settings.phase2.ema,
        }

    def teachers(self) -> dict[str, Classifier]:
        """Return the models that label images."""
        return {name: peer.teacher() for name, peer in self.peers.items()}

    def inference_models(self) -> dict[str, Classifier]:
        """Return the tested models; fitted negative vectors are not averaged, since they would not fit the average."""
        heads = HEADS[:1] if self.fits_negatives else HEADS
        return {name: peer.inference_model(self.settings.phase2.wise, heads) for name, peer in self.peers.items()}

    def inference_encoders(self) -> Encoders:
        """Return the image encoders of the tested models."""
        return {name: model.features for name, model in self.inference_models().items()}

    def zero_shot_text(self) -> Tensor:
        """Return the text features by which seeds are chosen. Unit length, shape (C, embed_dim)."""
        return self.engine.clip.zero_shot_text()

    @torch.no_grad()
    def predictor(self) -> Predictor:
        """Return the predictor: both peers, or zero-shot CLIP if nothing is trained."""
        settings, clip = self.settings, self.engine.clip
        if not self.trains:
            return zero_shot(clip.visual, self.zero_shot_text().to(self.engine.device), clip.scale)
        classifiers = {name: final_classifier(model) for name, model in self.inference_models().items()}
        for name, temperatures in self.temperatures.items():
            classifiers[name] = classifiers[name].calibrated(*temperatures)
        if settings.negative == NONE:
            return Predictor(classifiers, temperature=self.mean_temperature)
        return Predictor(classifiers, settings.classify, settings.clean_rule, self.mean_temperature)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with what labels batches and the temperatures of a finished run's predictor."""
        labellers = {name: labeller.state_dict() for name, labeller in self.batch_labellers.items()}
        temperatures = {"temperatures": self.temperatures, "mean_temperature": self.mean_temperature}
        return super().state_dict() | temperatures | {"batch_labellers": labellers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the result of `state_dict`."""
        super().load_state_dict(state)
        self.temperatures = state["temperatures"]
        self.mean_temperature = state.get("mean_temperature", 1.0)  # states of earlier versions lack it
        self.batch_labellers = {name: BatchLabeller.from_state(x) for name, x in state["batch_labellers"].items()}
        for labeller in self.batch_labellers.values():
            labeller.check(self.num_images, self.num_classes)

    # ---------------------------------------------------------------- batches

    def images_of_phase1(self) -> int:
        """Return the number of images in an epoch of Phase I: a full quota of seeds, but at most N images.

        A class may have no image.
        """
        return min(self.per_peer * self.num_classes, self.num_images)

    def streams(self) -> dict[str, list[Stream]]:
        """Return the streams of both peers; none if nothing is trained."""
        return super().streams() if self.trains else {}
