"""How unlabeled images group: a Gaussian of image features for each class, which text alone does not know.

A classifier names each image for itself. But images of a class lie together, and where most of a group are sure to be
of one class, so is the rest. That is linear discriminant analysis without a label: expectation-maximisation from the
classifier's own scores, which stay in the sum, so that groups keep their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor, nn

from .labelling import SCORES, pool_features
from .peer import Classifier
from .seeds import correct_prior_
from .side_by_side import SideBySide
from .unlabeled import UnlabeledPool

ROUNDS = 10  # of expectation and maximisation
MOST = 20_000  # images; the first ones in the order of their hashes, which is a random one


@dataclass(frozen=True)
class Groups:
    """A linear classifier of image features.

    Attributes:
        weight: Shape (embed_dim, C).
        bias: Shape (C,).
    """

    weight: Tensor
    bias: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """Log-likelihoods of features (n, embed_dim) but for what the classes share. Shape (n, C)."""
        return features @ self.weight + self.bias


def mean_margin(scores: Tensor) -> Tensor:
    """Mean of the greatest score less the second of scores (n, C). A scalar."""
    first, second = scores.topk(2, dim=1).values.unbind(dim=1)
    return (first - second).mean()


def class_gaussians(features: Tensor, posterior: Tensor) -> Groups:
    """Fit Gaussians of one covariance to weighted images: linear discriminant analysis with equal priors.

    A class's mean has one image at the mean of all in it, so that a class without images is nowhere special; the
    covariance, of images about the mean of their likeliest class, is shrunk as Ledoit and Wolf (2004) do.

    Args:
        features: With mean 0. Shape (n, embed_dim), fp64.
        posterior: How much of an image is of a class. Shape (n, C), fp64.
    """
    means = posterior.t() @ features / (posterior.sum(dim=0) + 1).unsqueeze(1)
    residuals = features - means[posterior.argmax(dim=1)]
    covariance = torch.from_numpy(ledoit_wolf(residuals.cpu().numpy(), assume_centered=True)[0]).to(features)
    covariance.diagonal().add_(1e-12)  # features may all be the same
    weight = torch.linalg.solve(covariance, means.t())
    return Groups(weight, -(means * weight.t()).sum(dim=1) / 2)


def fit_groups(features: Tensor, scores: Tensor, rounds: int = ROUNDS) -> Groups:
    """Find groups by expectation-maximisation, from scores that are added to their log-likelihoods in every round.

    Features of many dimensions make log-likelihoods of hundreds, which would leave the scores no say. So both speak
    equally loud: log-likelihoods are scaled to have the scores' mean margin.

    Args:
        features: Unit-length image features. Shape (n, embed_dim).
        scores: Of the same images, log-probabilities up to a constant. Shape (n, C).
        rounds: At least 1.

    Returns:
        Groups, scaled.
    """
    centre = features.double().mean(dim=0)
    features, scores = features.double() - centre, scores.double()
    loudness, posterior = mean_margin(scores), scores.softmax(dim=1)
    for _ in range(rounds):
        found = class_gaussians(features, posterior)
        share = loudness / mean_margin(found.scores(features)).clamp_min(1e-12)
        found = Groups(share * found.weight, share * found.bias)
        posterior = (scores + found.scores(features)).softmax(dim=1)
    return Groups(found.weight.float(), (found.bias - centre @ found.weight).float())


class GroupedClassifier(nn.Module):
    """A classifier that also listens to the groups: means of its logits, and of its clean log-odds, and their scores.

    Args:
        plain: The classifier.
        groups: Found in its image features.
    """

    def __init__(self, plain: Classifier, groups: Groups) -> None:
        super().__init__()
        self.plain, self.groups = plain, groups

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Classify images (n, 3, size, size): logits and clean log-odds, shape (n, C) each."""
        features = self.plain.features(images)
        logits, log_odds = self.plain.classify(features)
        with torch.autocast(features.device.type, enabled=False):
            told = self.groups.scores(features.float())
        return (logits + told) / 2, (log_odds + told) / 2


@torch.no_grad()
def listen_to_groups(
    classifiers: Mapping[str, Classifier],
    pool: UnlabeledPool,
    cfg: Any,
    device: torch.device,
    own: Any,
    side_by_side: SideBySide | None = None,
) -> dict[str, GroupedClassifier]:
    """Find each classifier's groups among the unlabeled images.

    Args:
        classifiers: By name.
        pool: The images.
        cfg: See `plain_batches`.
        device: Where the classifiers are.
        own: The keys CLASSIFY and PRIOR_TAU.
        side_by_side: Runs the classifiers at the same time.

    Returns:
        Classifiers that listen to them.
    """
    ranks = dict.fromkeys(classifiers, torch.arange(min(len(pool), MOST)))
    features = pool_features(classifiers, pool, cfg, device, ranks, side_by_side)
    grouped = {}
    for name, classifier in classifiers.items():
        scores = correct_prior_(SCORES[own.CLASSIFY](*classifier.classify(features[name])).cpu(), own.PRIOR_TAU)
        grouped[name] = GroupedClassifier(classifier, fit_groups(features[name], scores.to(device)))
    return grouped
