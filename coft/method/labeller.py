"""Running models over the unlabeled images: features, logits, predictions. Nothing else walks the pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from coft.core.parallel import Parallel
from coft.core.tables import Allocate, Rows, chunks, each_row, in_memory, map_rows
from coft.core.world import ALONE, World
from coft.labelling.classifier import Classifier
from coft.labelling.neighbours import NeighbourGraph, neighbour_count
from coft.labelling.pseudo_labels import Predictions, correct_prior_

from .negative_prompt import p_clean
from .protocol import Backbone, Images, Runtime

Scores = tuple[Tensor, Tensor]  # logits l+ and clean log-odds d of some images, shape (n, C) each

# How logits l+ and clean log-odds d become the score that a class is chosen by.
SCORES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "joint": lambda logits, log_odds: (logits + log_odds) / 2,  # softmax: geometric mean of p and coupled p_clean
    "positive": lambda logits, log_odds: logits,
}


def mean_features(encode: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Features of images, or the mean of the features of several views of them.

    Logits and clean log-odds are linear in the features: those of the mean are the means of the views'.

    Args:
        encode: Images (n, 3, size, size) to features (n, embed_dim).
        images: Shape (n, 3, size, size), or (n, num_views, 3, size, size).

    Returns:
        Shape (n, embed_dim).
    """
    if images.dim() == 4:
        return encode(images)
    return encode(images.flatten(0, 1)).unflatten(0, images.shape[:2]).mean(dim=1)


class Labeller:
    """Runs models over the unlabeled images, several in one pass, in the precision of the run.

    With several views, an image is scored by the plain one and weak ones, which differ in each epoch. Of several
    processes each has its own part of the images, and its own rows of every table of all images.

    Args:
        images: The unlabeled images.
        runtime: Where and how.
        parallel: Runs the models at the same time.
    """

    def __init__(self, images: Images, runtime: Runtime, parallel: Parallel) -> None:
        self.images, self.runtime, self.parallel = images, runtime, parallel

    def encode(self, models: Mapping[str, Classifier], num_views: int = 1, epoch: int = 0) -> dict[str, Tensor]:
        """Each model's features of all images, means over views. Shape (N, embed_dim) each, on the CPU."""
        models, own = _evaluated(models), self.runtime.world.index(len(self.images))
        count = len(self.images) if own is None else len(own)
        parts = {name: Rows(count, self.runtime.allocate) for name in models}
        with self._working():
            for batch in self.images.plain(own, num_views, view_key(self.runtime, epoch)):
                images = dict.fromkeys(models, batch)
                for name, rows in self._map(partial(_features, models, images), models).items():
                    parts[name].add(rows)
        return {name: part.table() for name, part in parts.items()}

    def encode_some(
        self,
        models: Mapping[str, Classifier],
        index: Mapping[str, Tensor],
        num_views: int = 1,
        epoch: int = 0,
    ) -> dict[str, Tensor]:
        """Each model's features of some images of its own, on every rank those of all. Shape (n, embed_dim), fp32."""
        models, world = _evaluated(models), self.runtime.world
        own = {name: index[name][world.part(len(index[name]))] for name in models}
        parts = {name: [torch.empty(0, model.positive.shape[1])] for name, model in models.items()}
        with self._working():
            for batches in zip_longest(
                *(self.images.plain(own[name], num_views, view_key(self.runtime, epoch)) for name in models)
            ):
                pairs = zip(models, batches, strict=True)
                images = {name: batch for name, batch in pairs if batch is not None}
                for name, rows in self._map(partial(_features, models, images), images).items():
                    parts[name].append(rows)
        return {name: world.gather(_joined(parts.pop(name))) for name in models}

    @torch.no_grad()
    def classify(self, models: Mapping[str, Classifier], features: Mapping[str, Tensor]) -> dict[str, Scores]:
        """Each model's logits l+ and clean log-odds d of images that are encoded. Shape (N, C) each, on the CPU."""
        found = {}
        with self.runtime.timed("labelling"):
            for name, table in features.items():
                logits, log_odds = (Rows(len(table), self.runtime.allocate) for _ in range(2))
                for (rows,) in chunks(table):
                    scores = models[name].classify(rows.to(models[name].device))
                    logits.add(scores[0])
                    log_odds.add(scores[1])
                found[name] = logits.table(), log_odds.table()
        return found

    def score(self, models: Mapping[str, Classifier], num_views: int = 1, epoch: int = 0) -> dict[str, Scores]:
        """Each model's logits l+ and clean log-odds d of all images, in one pass. Shape (N, C) each, on the CPU."""
        models, index = _evaluated(models), self.runtime.world.index(len(self.images))
        count = len(self.images) if index is None else len(index)
        parts = {name: tuple(Rows(count, self.runtime.allocate) for _ in range(2)) for name in models}
        with self._working():
            for batch in self.images.plain(index, num_views, view_key(self.runtime, epoch)):
                for name, scores in self.scores_of(models, batch).items():
                    for part, numbers in zip(parts[name], scores, strict=True):
                        part.add(numbers)
        return {name: (logits.table(), log_odds.table()) for name, (logits, log_odds) in parts.items()}

    def score_own(self, models: Mapping[str, Classifier], index: Mapping[str, Tensor], epoch: int) -> dict[str, Scores]:
        """Each model's logits l+ and clean log-odds d of some images of its own, plain views.

        Args:
            models: By name.
            index: Which images. Shape (n,) each.
            epoch: The present one.

        Returns:
            Shape (n, C) each.
        """
        return self.classify(models, self.encode_some(models, index, 1, epoch))

    def scores_of(self, models: Mapping[str, Classifier], images: Tensor) -> dict[str, Scores]:
        """Each model's logits l+ and clean log-odds d of a batch, without gradients. Shape (n, C) each."""

        def scores(name: str) -> Scores:
            if images.dim() == 4:
                return models[name](images)
            return models[name].classify(mean_features(models[name].features, images))

        return self._map(scores, models)

    def _map(self, function: Callable[[str], Any], names: Mapping[str, object]) -> dict[str, Any]:
        return self.parallel.map_without_gradients(function, list(names), self.runtime.device.type)

    @contextmanager
    def _working(self) -> Iterator[None]:
        with self.runtime.timed("labelling"), torch.no_grad(), self.runtime.autocast():
            yield


def _joined(parts: list[Tensor]) -> Tensor:
    """Rows of all parts; the first, which is empty, says how wide they are where there are no others."""
    return torch.cat(parts[1:] or parts)


def _evaluated(models: Mapping[str, Classifier]) -> dict[str, Classifier]:
    return {name: model.eval() for name, model in models.items()}


def _features(models: Mapping[str, Classifier], images: Mapping[str, Tensor], name: str) -> Tensor:
    return mean_features(models[name].features, images[name]).float()


def view_key(runtime: Runtime, epoch: int) -> tuple[int | str, ...]:
    """What the weak views depend on that labels are made of."""
    return runtime.seed, "labels", epoch


def zero_shot_logits(features: Tensor, text: Tensor, scale: float, runtime: Runtime) -> Tensor:
    """Logits of all unlabeled images under the frozen CLIP.

    Args:
        features: Of the images. Shape (N, embed_dim).
        text: Unit-length text features. Shape (C, embed_dim).
        scale: CLIP's logit scale.
        runtime: Where and how to compute.

    Returns:
        Shape (N, C), on the CPU.
    """
    vectors = text.cpu().t()
    return map_rows(lambda rows: scale * rows @ vectors, features, allocate=runtime.allocate)


def first_logits(
    images: Images, backbone: Backbone, text: Tensor, runtime: Runtime, num_views: int, tau: float
) -> Tensor:
    """Log-probabilities of all images under the frozen CLIP, its prior corrected, spread among neighbours.

    Args:
        images: The unlabeled images.
        backbone: Has their features, in which they are neighbours.
        text: Unit-length text features. Shape (C, embed_dim).
        runtime: Where and how to compute.
        num_views: Views of an image that its features are the mean of.
        tau: Strength of the prior correction.

    Returns:
        Shape (N, C), fp64, on the CPU.
    """
    features = first_features(images, backbone, runtime, num_views)
    logits = correct_prior_(zero_shot_logits(features, text, backbone.scale, runtime), tau, runtime.world)
    graph = first_neighbours(images, backbone, runtime, num_views)
    with runtime.timed("labelling"):
        return graph.spread(logits, runtime.allocate)


def first_neighbours(images: Images, backbone: Backbone, runtime: Runtime, num_views: int) -> NeighbourGraph:
    """The graph of images that are alike to the frozen CLIP; arguments as of `first_logits`."""
    features = first_features(images, backbone, runtime, num_views)
    with runtime.timed("labelling"):
        count = neighbour_count(len(images), len(backbone.classnames))
        return NeighbourGraph(features, count, world=runtime.world)


def first_features(images: Images, backbone: Backbone, runtime: Runtime, num_views: int) -> Tensor:
    """Features of all images under the frozen CLIP, means over views. Shape (N, embed_dim)."""
    with runtime.timed("labelling"):
        return backbone.image_features(images, num_views, view_key(runtime, 0))


def predict(
    logits: Tensor,
    log_odds: Tensor,
    tau: float,
    clean_rule: str,
    graph: NeighbourGraph | None = None,
    allocate: Allocate = in_memory,
    world: World = ALONE,
) -> Predictions:
    """What a model predicts for all unlabeled images, in place: there may be no room for another two tables.

    The label is the likeliest class. With a graph, probabilities spread among neighbours, and so do labels, whose prior
    is then corrected once more.

    Args:
        logits: l+. Shape (N, C). Becomes the probabilities.
        log_odds: d. Shape (N, C). Becomes p_clean.
        tau: Strength of the prior correction, of the logits and of the log-odds.
        clean_rule: A name of `CLEAN_RULES`.
        graph: Of the images.
        allocate: Makes tables.
        world: Its ranks have a part of the rows each.
    """
    correct_prior_(logits, tau, world)
    spread = logits if graph is None else correct_prior_(graph.spread(logits, allocate), tau, world)
    label = world.gather(each_row(lambda rows: rows.argmax(dim=1), spread))
    for (rows,) in chunks(logits):
        rows.copy_(rows.softmax(dim=1))
    if graph is not None:
        logits.copy_(graph.smooth(logits, allocate))
    return Predictions(label, logits, clean_(log_odds, tau, clean_rule, world), world)


def clean_(log_odds: Tensor, tau: float, clean_rule: str, world: World = ALONE) -> Tensor:
    """p_clean of all unlabeled images, in the place of their clean log-odds; as of `predict`. Shape (N, C)."""
    correct_prior_(log_odds, tau, world)
    for (rows,) in chunks(log_odds):
        rows.copy_(p_clean(rows, clean_rule))
    return log_odds


def best_class(logits: Tensor, log_odds: Tensor, classify: str) -> Tensor:
    """The class of the best score of each image. Shape (n,)."""
    return each_row(lambda rows, odds: SCORES[classify](rows, odds).argmax(dim=1), logits, log_odds)
