"""What a model predicts for all unlabeled images, from its features of them."""

from __future__ import annotations

from coft.core.table import Table
from coft.labelling.classifier import CLEAN_RULES
from coft.labelling.first_labels import likeliest
from coft.labelling.mixture import with_mixture
from coft.labelling.neighbours import NeighbourGraph, log_of
from coft.labelling.predictor import FinalClassifier
from coft.labelling.prior import correct_prior
from coft.labelling.pseudo_labels import Predictions


def predict(
    features: Table, model: FinalClassifier, tau: float, clean_rule: str, graph: NeighbourGraph | None = None
) -> Predictions:
    """What a model predicts for all unlabeled images. The label is the likeliest class.

    Args:
        features: By the model's encoder. Shape (N, embed_dim).
        model: Its vectors are read.
        tau: Strength of the prior correction, of the logits and of the log-odds.
        clean_rule: A name of `CLEAN_RULES`.
        graph: Of the images. With one, probabilities spread among neighbours, and so do labels, whose prior is then
            corrected once more.
    """
    logits = correct_prior(model.logits(features), tau)
    clean = clean_labels(features, model, tau, clean_rule)
    if graph is None:
        return Predictions(likeliest(logits), logits.map(lambda rows: rows.softmax(dim=1)), clean)
    probability = graph.spread(logits)
    labels = likeliest(with_mixture(features, correct_prior(log_of(probability), tau, graph.index), graph.index))
    return Predictions(labels, probability.map(lambda rows: rows.float()), clean)


def clean_labels(features: Table, model: FinalClassifier, tau: float, clean_rule: str) -> Table:
    """p_clean of every class of all unlabeled images, the prior of the log-odds corrected. Shape (N, C)."""
    return correct_prior(model.log_odds(features), tau).map(CLEAN_RULES[clean_rule])
