"""Where the classes lie among the images: a Gaussian mixture that corrects what text and neighbours say.

A class that its name describes badly loses all its images to another one, and neighbours repeat that. Where its images
make up a cluster, a Gaussian finds it. After TransCLIP (Zanella, Gérin and Ben Ayed, NeurIPS 2024), whose mixture has
one variance a dimension for all classes and takes the text as its prior.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from coft.core.table import Table

from .calibration import calibrated, sample

ROUNDS = 10  # of fitting the Gaussians and weighing the images anew


def with_mixture(features: Table, scores: Table, index: Tensor) -> Table:
    """Scores of all images, corrected by Gaussians of the classes.

    The posterior z of an image is proportional to p exp(g / T): p is the softmax of its scores, and g_c the
    log-likelihood of the Gaussian of class c, around the mean direction of all images weighted by z_c.

    Args:
        features: Of unit length. Shape (N, k).
        scores: Log-probabilities, up to a constant. Shape (N, C).
        index: Images that the Gaussians are fitted to. Shape (n,).

    Returns:
        log z, up to a constant. Shape (N, C), fp64.
    """
    weight, bias = fit(Table.of(features.at(index)), Table.of(scores.at(index)))
    return scores.map(lambda rows, x: rows.double() + _linear(x, weight, bias), features)


def fit(features: Table, scores: Table) -> tuple[Tensor, Tensor]:
    """Fit the Gaussians to some images.

    Args:
        features: Of unit length. Shape (n, k).
        scores: Log-probabilities, up to a constant. Shape (n, C).

    Returns:
        Weights, shape (C, k), and biases, shape (C,), of g / T, less what all classes share. Both are fp64.
    """
    z = prior = scores.map(lambda rows: rows.double().softmax(dim=1))
    squares = features.map(lambda x: x.double().square()).mean()
    some = sample(len(scores))
    for _ in range(ROUNDS):
        sums = z.map(lambda rows, x: rows.to(x.dtype), features).inner(features).double() / len(scores)
        centres = F.normalize(sums, dim=1)
        variance = squares - 2 * (centres * sums).sum(dim=0) + z.mean() @ centres.square()
        weight = centres / variance.clamp_min(1e-6)
        bias = -(weight * centres).sum(dim=1) / 2
        # Dimensions depend on each other, so that the sum over them says too much, in each data set otherwise.
        temperature = calibrated(_linear(features.at(some), weight, bias), prior.at(some))
        weight, bias = weight / temperature, bias / temperature
        z = scores.map(lambda rows, x, w=weight, b=bias: (rows.double() + _linear(x, w, b)).softmax(dim=1), features)
    return weight, bias


def _linear(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Products in the type of the features, for there are many."""
    return (features @ weight.to(features.dtype).t()).double() + bias
