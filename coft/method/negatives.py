"""Fits of the negative vectors to labels, with image features and positive vectors fixed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from coft.core.seeding import generator
from coft.core.table import Table
from coft.labelling.classifier import Classifier
from coft.labelling.protocol import Engine
from coft.labelling.pseudo_labels import PseudoLabels

from .negative_prompt import draw, fit_negative

Labels = Mapping[str, PseudoLabels]


def fit_negatives(
    engine: Engine,
    models: Mapping[str, Classifier],
    labels: Labels,
    epoch: int,
    features_of: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
) -> dict[str, Tensor]:
    """Fit the negative vectors of several models to labels.

    Args:
        engine: Engine, which fits the models concurrently where that is faster.
        models: Models with positive and initial negative vectors, by name.
        labels: Labels for each model.
        epoch: Current epoch, which seeds random numbers.
        features_of: Function from image indices by model, shape (n,), to features by model, shape (n, embed_dim).

    Returns:
        Negative vectors of unit length by model. Shape (C, embed_dim) each.
    """
    sources = {name: generator(engine.seed, "negative", name, epoch) for name in labels}
    chosen = {name: kept.at(draw(len(kept.label), sources[name])) for name, kept in labels.items()}
    features = features_of({name: kept.index for name, kept in chosen.items()})

    def fitted(name: str) -> Tensor:
        model, kept = models[name], chosen[name]
        rows, label, weight = (x.to(model.device) for x in (features[name], kept.label, kept.weight.float()))
        vectors = model.positive, model.negative_vectors
        return fit_negative(rows, label, weight, *vectors, model.scale, sources[name])

    return dict(zip(chosen, engine.map(fitted, list(chosen)), strict=True))


def class_balanced(labels: Labels, num_classes: int) -> dict[str, PseudoLabels]:
    """Weight labels by inverse class frequency, so that all classes count about equally.

    Otherwise d would favour the classes that have more labels.
    """
    frequency = {name: kept.log_frequency(num_classes) for name, kept in labels.items()}
    return {
        name: kept.with_weights(kept.weight.float() * torch.exp(-frequency[name][kept.label]))
        for name, kept in labels.items()
    }


def rows_getter(features: Mapping[str, Table]) -> Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]:
    """Return `features_of` for `fit_negatives` from features of all images by model, shape (N, embed_dim) each."""
    return lambda index: {name: features[name].at(rows) for name, rows in index.items()}
