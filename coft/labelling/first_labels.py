"""What the frozen CLIP says of all unlabeled images: text, a corrected prior, and neighbours."""

from __future__ import annotations

from torch import Tensor

from coft.core.table import Table

from .mixture import with_mixture
from .neighbours import NeighbourGraph, log_of
from .predictor import linear
from .prior import correct_prior


def zero_shot_logits(features: Table, text: Tensor, scale: float) -> Table:
    """Logits of all unlabeled images under the frozen CLIP.

    Args:
        features: Of the images. Shape (N, embed_dim).
        text: Unit-length text features. Shape (C, embed_dim).
        scale: CLIP's logit scale.

    Returns:
        Shape (N, C).
    """
    return linear(features, text.cpu(), scale)


def spread_scores(features: Table, text: Tensor, scale: float, tau: float, graph: NeighbourGraph) -> Table:
    """Log-probabilities of all images: by the frozen CLIP, the prior corrected, spread among neighbours.

    Args:
        features: Of the images. Shape (N, embed_dim).
        text: Unit-length text features. Shape (C, embed_dim).
        scale: CLIP's logit scale.
        tau: Strength of the prior correction.
        graph: Of the images.

    Returns:
        Shape (N, C), fp64.
    """
    return log_of(graph.spread(correct_prior(zero_shot_logits(features, text, scale), tau)))


def first_scores(features: Table, text: Tensor, scale: float, tau: float, graph: NeighbourGraph) -> tuple[Table, Table]:
    """Scores as `spread_scores` has them, the prior corrected again; and corrected by Gaussians.

    Returns:
        With the Gaussians, and without them. Shape (N, C) each, fp64.
    """
    spread = correct_prior(spread_scores(features, text, scale, tau, graph), tau, graph.index)
    return with_mixture(features, spread, graph.index), spread


def likeliest(scores: Table) -> Tensor:
    """Class of the greatest score of each image. Shape (N,)."""
    return scores.map(lambda rows: rows.argmax(dim=1)).all()
