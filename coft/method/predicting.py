"""A model's predictions for all unlabeled images, from their features."""

from __future__ import annotations

from coft.core.table import Table
from coft.labelling.calibration import Calibration
from coft.labelling.classifier import CLEAN_RULES
from coft.labelling.first_labels import corrected_scores
from coft.labelling.neighbours import NeighbourGraph
from coft.labelling.predictor import FinalClassifier
from coft.labelling.prior import correct_prior


def label_scores(features: Table, model: FinalClassifier, tau: float, graph: NeighbourGraph | None = None) -> Table:
    """Compute the scores by which all unlabeled images are labelled: logits with the prior corrected.

    Args:
        features: Image features from the model's encoder. Shape (N, embed_dim).
        model: Model whose vectors are used.
        tau: Strength of the prior correction.
        graph: Neighbour graph of the images. If given, the scores are corrected further; see `corrected_scores`.

    Returns:
        Scores. Shape (N, C).
    """
    logits = model.logits(features)
    return correct_prior(logits, tau) if graph is None else corrected_scores(features, logits, tau, graph)[0]


def probabilities(scores: Table, calibration: Calibration | None = None) -> Table:
    """Compute class probabilities from scores of all images, shape (N, C) each, with or without calibration."""
    temperature = calibration.temperature_of(scores) if calibration else 1.0
    return scores.map(lambda rows: (rows / temperature).softmax(dim=1).float())


def clean_labels(
    features: Table, model: FinalClassifier, tau: float, clean_rule: str, calibration: Calibration | None = None
) -> Table:
    """Compute p_clean of every class of all unlabeled images. Shape (N, C).

    Args:
        features: Image features from the model's encoder. Shape (N, embed_dim).
        model: Model whose vectors are used.
        tau: Strength of the prior correction of the log-odds.
        clean_rule: Rule from d to p_clean, a key of `CLEAN_RULES`.
        calibration: Calibration of the log-odds; None for none.
    """
    log_odds = correct_prior(model.log_odds(features), tau)
    temperature = calibration.temperature_of(log_odds) if calibration else 1.0
    return log_odds.map(lambda rows: CLEAN_RULES[clean_rule](rows / temperature))
