"""First labels: scores of all unlabeled images, from text, prior correction, neighbours and Gaussians."""

from __future__ import annotations

from torch import Tensor

from coft.core.table import Table

from .mixture import with_mixture
from .neighbours import NeighbourGraph, log_of
from .predictor import linear
from .prior import correct_prior


def zero_shot_logits(features: Table, text: Tensor, scale: float) -> Table:
    """Compute the frozen CLIP's logits of all unlabeled images.

    Args:
        features: Image features. Shape (N, embed_dim).
        text: Unit-length text features. Shape (C, embed_dim).
        scale: CLIP's logit scale.

    Returns:
        Logits. Shape (N, C).
    """
    return linear(features, text.cpu(), scale)


def corrected_scores(features: Table, logits: Table, tau: float, graph: NeighbourGraph) -> tuple[Table, Table]:
    """Correct the scores of all images.

    The prior is corrected, probabilities spread among neighbours, the prior is corrected again, and Gaussians correct
    the scores.

    Args:
        features: Image features, to which the Gaussians are fitted. Shape (N, embed_dim).
        logits: The scores, of the frozen CLIP or of a trained model. Shape (N, C).
        tau: Strength of the prior correction.
        graph: Neighbour graph of the images.

    Returns:
        Log-probabilities, up to a constant, after and before the correction by Gaussians. Shape (N, C) each, fp64.
    """
    spread = log_of(graph.spread(correct_prior(logits, tau)))
    corrected = correct_prior(spread, tau, graph.index)
    return with_mixture(features, corrected, graph.index), corrected


def likeliest(scores: Table) -> Tensor:
    """Return the class with the highest score of each image. Shape (N,)."""
    return scores.map(lambda rows: rows.argmax(dim=1)).all()
