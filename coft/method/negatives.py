"""Negative vectors of the classes are fitted to labels; image features and positive vectors stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from coft.core.seeding import generator
from coft.labelling.classifier import Classifier
from coft.labelling.pseudo_labels import Predictions, PseudoLabels

from .coft_settings import CoFTSettings
from .filters import ALONE, probability
from .labeller import clean_
from .negative_prompt import draw, fit_negative
from .pair import PARTNERS, Pair


@dataclass(frozen=True)
class NegativeVectors:
    """Fits the negative vectors of two peers, where a class has one of its own.

    Attributes:
        pair: The peers.
        settings: `class_negative`, `lambda_dual`, `label_views`, `filter`, `prior_tau` and `clean_rule` are read.
    """

    pair: Pair
    settings: CoFTSettings

    @property
    def fitted(self) -> bool:
        """Whether they are fitted to what they tell apart, instead of trained alone."""
        return bool(self.settings.class_negative and self.settings.lambda_dual)

    def fit_to_seeds(self, epoch: int) -> None:
        """Fit each teacher's to its seeds.

        Args:
            epoch: The present one, for random numbers.
        """
        if not self.fitted:
            return
        each = {name: peer.seeds for name, peer in self.pair.peers.items()}
        self.fit(self.pair.teachers(), each, self.settings.label_views, epoch)

    def fit_to_predictions(
        self, features: Mapping[str, Tensor], predictions: dict[str, Predictions], epoch: int
    ) -> None:
        """Fit each teacher's to its partner's labels of all images; its p_clean is then of these.

        A label counts as much as both peers' softmax believe it. With a filter of `ALONE`, a peer takes its own labels.

        Args:
            features: Of all images, by peer. Shape (N, embed_dim) each.
            predictions: By peer; p_clean is replaced.
            epoch: The present one, for random numbers.
        """
        if not self.fitted:
            return
        own, world = self.settings, self.pair.runtime.world
        alone = own.filter in ALONE
        sources = {name: predictions[name if alone else partner] for name, partner in PARTNERS.items()}
        labels = {name: probability(predictions[name], source) for name, source in sources.items()}
        self.fit(self.pair.teachers(), labels, own.label_views, epoch, features)
        for name, (_, log_odds) in self.pair.labeller.classify(self.pair.teachers(), features).items():
            clean = clean_(log_odds, own.prior_tau, own.clean_rule, world)
            predictions[name] = replace(predictions[name], clean=clean)

    def fit_to_labels(
        self,
        models: Mapping[str, Classifier],
        labels: Mapping[str, PseudoLabels],
        frequency: Mapping[str, Tensor],
        epoch: int,
    ) -> None:
        """Fit those of the models that are tested to the last labels, with all classes at equal weight.

        The logits l+ are trained with log frequencies added and tested without; d must not bring them back.

        Args:
            models: By peer.
            labels: Likewise.
            frequency: Log frequency of the classes in the labels. Shape (C,) each.
            epoch: The present one, for random numbers.
        """
        if not self.fitted:
            return
        balanced = {}
        for name, own in labels.items():
            weight = own.weight.float() * torch.exp(-frequency[name][own.label])
            balanced[name] = PseudoLabels(own.index, own.label, weight)
        self.fit(models, balanced, 1, epoch)

    @torch.no_grad()
    def fit(
        self,
        models: Mapping[str, Classifier],
        labels: Mapping[str, PseudoLabels],
        num_views: int,
        epoch: int,
        known: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Fit each peer's vectors to labels.

        Args:
            models: Whose features and positive vectors they go with.
            labels: Of each.
            num_views: Views of an image that its features are the mean of.
            epoch: The present one, for random numbers.
            known: Features of all images, where they are at hand. Shape (N, embed_dim) each.
        """
        pair, runtime = self.pair, self.pair.runtime
        sources = {name: generator(runtime.seed, "negative", name, epoch) for name in labels}
        chosen = {name: labels[name].at(draw(len(labels[name].label), sources[name])) for name in labels}
        index = {name: own.index for name, own in chosen.items()}
        if known is None:
            features = pair.labeller.encode_some(models, index, num_views, epoch)
        else:
            images = len(pair.images)
            features = {name: runtime.world.take(known[name], own, images) for name, own in index.items()}

        def fitted(name: str) -> Tensor:
            model, label, weight = models[name], chosen[name].label, chosen[name].weight.float()
            device = model.device
            numbers = features[name].to(device), label.to(device), weight.to(device)
            return fit_negative(*numbers, model.positive, model.negative, model.scale, sources[name])

        with runtime.timed("labelling"):
            negatives = pair.parallel.map(fitted, list(chosen))
        for name, negative in zip(chosen, negatives, strict=True):
            pair.peers[name].set_negative(negative)
