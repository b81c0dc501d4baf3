"""What both peers think of the images: features, opinions, and the negative vectors that judge labels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from coft.method.labelling import (
    classify_features,
    classify_pool,
    encode_pool,
    mean_log_probabilities,
    opinion,
    pool_features,
)
from coft.method.lessons import Targets
from coft.method.negative_head import draw, fit_negative
from coft.method.peer import Classifier
from coft.method.pseudo_labels import Opinion
from coft.method.seeding import generator
from coft.method.seeds import Seeds, correct_prior_

from .peer_trainer import PEERS, PeerTrainer


class JudgingTrainer(PeerTrainer):
    """Peers that label images and judge labels. What they are taught with it is the business of subclasses.

    Attributes:
        targets: What each peer is taught in the present epoch.
    """

    targets: dict[str, Targets]

    # ---------------------------------------------------------------- labels

    def opinions_of(self, views: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Opinion]:
        """Form the peers' opinions from logits l+ and clean log-odds d of all images, in place. Shape (N, C) each."""
        own = self.own
        return {name: opinion(*views[name], own.PRIOR_TAU, own.CLEAN_RULE, self.labels_by) for name in PEERS}

    @property
    def labels_by(self) -> str:
        """What pseudo-labels are the best class by, a name of `SCORES`: another one when Phase II has trained."""
        return str(self.own.CLASSIFY if self.epoch <= self.phase1_epochs else self.own.PHASE2.CLASSIFY)

    def teachers(self) -> dict[str, Classifier]:
        """The classifiers that label images."""
        return {name: peer.teacher() for name, peer in self.peers.items()}

    @property
    def view_key(self) -> tuple[int | str, ...]:
        """What the weak views depend on that labels are made of."""
        return self.cfg.SEED, "labels", self.epoch

    def encode(self) -> dict[str, Tensor]:
        """Features of all images by the classifiers that label, means over views. Shape (N, embed_dim) each."""
        teachers = {name: teacher.eval() for name, teacher in self.teachers().items()}
        views = self.own.LABEL_VIEWS
        with self.clock.part("labelling"), self.autocast():
            return encode_pool(teachers, self.pool, self.cfg, self.device, self.side_by_side, views, self.view_key)

    def classified(self, features: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        """Logits l+ and clean log-odds d of all images by the classifiers that label them. Shape (N, C) each.

        Args:
            features: See `encode`.
        """
        with self.clock.part("labelling"):
            return classify_features(self.teachers(), features, self.device, self.output_dir)

    def _classify(self, ranks: Tensor | None) -> dict[str, tuple[Tensor, Tensor]]:
        views = self.own.LABEL_VIEWS if ranks is None else 1
        teachers = {name: teacher.eval() for name, teacher in self.teachers().items()}
        with self.clock.part("labelling"), self.autocast():
            return classify_pool(
                teachers, self.pool, self.cfg, self.device, ranks, self.side_by_side, views, self.view_key
            )

    def together(self, views: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
        """Log of the mean of some peers' probabilities, its prior corrected.

        Args:
            views: Their logits l+ and clean log-odds d of all images, by peer. Shape (N, C) each.

        Returns:
            Shape (N, C), fp64.
        """
        mean = mean_log_probabilities([views[n] for n in PEERS if n in views], self.labels_by, self.output_dir)
        return correct_prior_(mean, self.own.PRIOR_TAU)

    # ---------------------------------------------------------------- the judges

    @torch.no_grad()
    def fit_negatives(self, known: Mapping[str, Tensor] | None = None, to_lessons: bool = False) -> None:
        """Fit each peer's negative vectors, with image features and positive vectors as they are.

        Args:
            known: Features of all images by the classifiers that label, where they are at hand. Shape (N, embed_dim).
            to_lessons: Fit to the labels that the peer was taught last in Phase II, by their weights, the vectors of
                the classifiers that are tested; else to its surest seeds, clean or not, so that the vectors may judge
                other labels.
        """
        if not self.fits_negatives:
            return
        given: Mapping[str, Seeds | Targets] = self.targets if to_lessons else self.surest_seeds()
        sources = {name: generator(self.cfg.SEED, "negative", name, self.epoch) for name in given}
        chosen = {name: draw(len(data.labels), sources[name]) for name, data in given.items()}
        ranks = {name: data.ranks[chosen[name]] for name, data in given.items()}
        of_tested = to_lessons and self.own.PHASE2.FIT_TESTED
        classifiers = self.tested() if of_tested else {name: peer.teacher().eval() for name, peer in self.peers.items()}
        weights = {name: data.balanced_weight if of_tested else data.weight.float() for name, data in given.items()}

        def fitted(name: str) -> Tensor:
            told, vectors = given[name], classifiers[name]
            labels, weight = (x[chosen[name]].to(self.device) for x in (told.labels, weights[name]))
            return fit_negative(
                features[name], labels, weight, vectors.positive, vectors.negative, vectors.scale, sources[name]
            )

        with self.clock.part("labelling"):
            if known is None:
                views = 1 if to_lessons else self.own.LABEL_VIEWS
                with self.autocast():
                    features = pool_features(
                        classifiers, self.pool, self.cfg, self.device, ranks, self.side_by_side, views, self.view_key
                    )
            else:
                features = {name: known[name][ranks[name]].to(self.device) for name in given}
            negatives = self.side_by_side.map(fitted, list(given))
        for name, negative in zip(given, negatives, strict=True):
            self.peers[name].set_negative(negative)

    def surest_seeds(self) -> dict[str, Seeds]:
        """Each peer's best seeds, as many of a class as Phase I begins with: later rounds have more, less sure ones."""
        return {name: peer.seeds.best(self.seeds_per_peer, len(self.classnames)) for name, peer in self.peers.items()}
