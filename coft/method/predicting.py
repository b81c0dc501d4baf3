"""A model's predictions for all unlabeled images, from their features."""

from __future__ import annotations

from coft.core.table import Table
from coft.labelling.calibration import Belief
from coft.labelling.classifier import CLEAN_RULES
from coft.labelling.first_labels import likeliest
from coft.labelling.mixture import with_mixture
from coft.labelling.neighbours import NeighbourGraph, log_of
from coft.labelling.predictor import FinalClassifier
from coft.labelling.prior import correct_prior
from coft.labelling.pseudo_labels import Predictions


def predict(
    features: Table,
    model: FinalClassifier,
    tau: float,
    clean_rule: str,
    belief: Belief | None = None,
    graph: NeighbourGraph | None = None,
) -> Predictions:
    """Predict labels, softmax probabilities and p_clean of all unlabeled images. The label is the likeliest class.

    Args:
        features: Image features from the model's encoder. Shape (N, embed_dim).
        model: Model whose vectors are used.
        tau: Strength of the prior correction of logits and log-odds.
        clean_rule: Rule from d to p_clean, a key of `CLEAN_RULES`.
        belief: Belief to which probabilities are calibrated; None for no calibration.
        graph: Neighbour graph of the images. If given, probabilities spread among neighbours, their prior is corrected
            again, and Gaussians correct them.
    """
    scores = correct_prior(model.logits(features), tau)
    if graph is not None:
        spread = correct_prior(log_of(graph.spread(scores)), tau, graph.index)
        scores = with_mixture(features, spread, graph.index)
    temperature = belief.temperature(scores) if belief else 1.0
    probability = scores.map(lambda rows: (rows / temperature).softmax(dim=1).float())
    return Predictions(likeliest(scores), probability, clean_labels(features, model, tau, clean_rule, belief))


def clean_labels(
    features: Table, model: FinalClassifier, tau: float, clean_rule: str, belief: Belief | None = None
) -> Table:
    """Compute p_clean of every class of all unlabeled images; see `predict`. Shape (N, C)."""
    log_odds = correct_prior(model.log_odds(features), tau)
    temperature = belief.temperature(log_odds) if belief else 1.0
    return log_odds.map(lambda rows: CLEAN_RULES[clean_rule](rows / temperature))
