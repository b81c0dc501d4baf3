"""Gaussian mixture over image features, with a component per class, which corrects scores from text and neighbours.

A class that its name describes badly loses all its images to another class, and neighbours repeat the error. If its
images form a cluster, a Gaussian recovers them. After TransCLIP (Zanella, Gérin and Ben Ayed, NeurIPS 2024), whose
mixture has one variance per dimension for all classes, and the text as its prior.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from coft.core.table import Table

from .calibration import evenly_spaced, fit_temperature

ROUNDS = 10  # iterations, each of which fits the Gaussians and then updates the posteriors


def with_mixture(features: Table, scores: Table, index: Tensor) -> Table:
    """Correct the scores of all images by a Gaussian of each class.

    The posterior z of an image is proportional to p exp(g / T). Here p is the softmax of its scores, and g_c the
    log-likelihood under the Gaussian of class c, which is centred at the mean direction of all images weighted by z_c.

    Args:
        features: Image features of unit length. Shape (N, k).
        scores: Log-probabilities, up to a constant. Shape (N, C).
        index: Indices of the images that the Gaussians are fitted to. Shape (n,).

    Returns:
        log z, up to a constant. Shape (N, C), fp64.
    """
    weight, bias = fit(Table.of(features.at(index)), Table.of(scores.at(index)))
    return scores.map(lambda rows, x: rows.double() + _linear(x, weight, bias), features)


def fit(features: Table, scores: Table) -> tuple[Tensor, Tensor]:
    """Fit the Gaussians.

    Args:
        features: Image features of unit length. Shape (n, k).
        scores: Log-probabilities, up to a constant. Shape (n, C).

    Returns:
        Weights, shape (C, k), and biases, shape (C,), of g / T, without the terms that all classes share. Both fp64.
    """
    z = prior = scores.map(lambda rows: rows.double().softmax(dim=1))
    squares = features.map(lambda x: x.double().square()).mean()
    some = evenly_spaced(len(scores))
    for _ in range(ROUNDS):
        sums = z.map(lambda rows, x: rows.to(x.dtype), features).inner(features).double() / len(scores)
        centres = F.normalize(sums, dim=1)
        variance = squares - 2 * (centres * sums).sum(dim=0) + z.mean() @ centres.square()
        weight = centres / variance.clamp_min(1e-6)
        bias = -(weight * centres).sum(dim=1) / 2
        # Dimensions are correlated, so the sum over them overstates g, by a different factor in each data set.
        temperature = fit_temperature(_linear(features.at(some), weight, bias), prior.at(some))
        weight, bias = weight / temperature, bias / temperature
        z = scores.map(lambda rows, x, w=weight, b=bias: (rows.double() + _linear(x, w, b)).softmax(dim=1), features)
    return weight, bias


def _linear(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply weights and biases; products are in the dtype of the features, since there are many. Shape (n, C), fp64."""
    return (features @ weight.to(features.dtype).t()).double() + bias
