"""The collaborative pseudo-label filter: one rule, one function, one line.

A rule of Phase II takes the predictions of a peer and of its partner. It says which labels the peer is trained on, and
how much each of them counts. The setting `filter` names one of `FILTERS`. In Phase I a peer's seeds are weighed by its
partner: `weigh_seeds`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from coft.core.table import Table
from coft.labelling.pseudo_labels import Predictions, PseudoLabels, at_label
from coft.labelling.seeds import best_of_each

Filter = Callable[[Predictions, Predictions], PseudoLabels]
SeedFilter = Callable[[PseudoLabels, Table, bool], PseudoLabels]  # seeds, partner's d (n, C), whether it is ready


def min_p_clean(peer: Predictions, partner: Predictions) -> PseudoLabels:
    """The partner's labels; the weight is the minimum of both peers' p_clean."""
    label = partner.label
    return PseudoLabels.of_pool(label, torch.minimum(peer.p_clean(label), partner.p_clean(label)))


def min_p_clean_hard(peer: Predictions, partner: Predictions) -> PseudoLabels:
    """The labels of `min_p_clean`, of which those above 1/2 count in full and the others not at all."""
    return PseudoLabels.of_pool(partner.label, min_p_clean(peer, partner).keep)


def partner_labels(peer: Predictions, partner: Predictions) -> PseudoLabels:
    """The partner's labels; the weight is the partner's p_clean."""
    return PseudoLabels.of_pool(partner.label, partner.p_clean(partner.label))


def min_softmax(peer: Predictions, partner: Predictions) -> PseudoLabels:
    """The partner's labels; the weight is the minimum of both peers' softmax of the positive vectors."""
    label = partner.label
    return PseudoLabels.of_pool(label, torch.minimum(peer.probability_of(label), partner.probability_of(label)))


def own_labels(peer: Predictions, partner: Predictions) -> PseudoLabels:
    """The peer's own labels; the weight is its own p_clean."""
    return PseudoLabels.of_pool(peer.label, peer.p_clean(peer.label))


def none(peer: Predictions, partner: Predictions) -> PseudoLabels:
    """The partner's labels, all of them in full."""
    return PseudoLabels.of_pool(partner.label)


FILTERS: dict[str, Filter] = {
    "min-p-clean": min_p_clean,
    "min-p-clean-hard": min_p_clean_hard,
    "partner": partner_labels,
    "min-softmax": min_softmax,
    "own": own_labels,
    "none": none,
}


UNWEIGHED = ("none",)  # with these, seeds count in full, too
HARD = ("min-p-clean-hard",)  # with these, seeds too count in full or not at all
OWN = ("own",)  # with these, also the negative vectors of each peer are fitted to its own labels


def keep_best(labels: PseudoLabels, score: Tensor, at_least: int, num_classes: int) -> PseudoLabels:
    """Let the best few labels of each class count in full in any case, so that no class is left without images.

    Args:
        labels: What a filter gave.
        score: The higher, the sooner kept. Shape (n,).
        at_least: How many of each class at least, as far as there are so many.
        num_classes: C.

    Returns:
        The labels with other weights. Ties go to the lower index.
    """
    best, _ = best_of_each(score, labels.label, torch.full((num_classes,), at_least))
    return labels.with_weights(labels.weight.index_fill(0, best, 1.0))


def keep_surest(
    labels: PseudoLabels, peer: Predictions, partner: Predictions, at_least: int, num_classes: int
) -> PseudoLabels:
    """`keep_best` by the sum of both peers' p_clean."""
    return keep_best(labels, peer.p_clean(labels.label) + partner.p_clean(labels.label), at_least, num_classes)


def weigh_seeds(
    seeds: PseudoLabels, clean: Table, log_odds: Table, at_least: int, num_classes: int, hard: bool = False
) -> PseudoLabels:
    """Weigh a peer's seeds by the p_clean of its partner, which was not trained on them.

    Args:
        seeds: Of the peer.
        clean: The partner's p_clean of these images. Shape (n, C).
        log_odds: The partner's clean log-odds of these images. Shape (n, C).
        at_least: Seeds of each class that count in full in any case, the best by log-odds.
        num_classes: C.
        hard: Whether seeds above 1/2 count in full and the others not at all.
    """
    weight = at_label(clean, seeds.label)
    weighed = seeds.with_weights(weight > 0.5 if hard else weight.float())
    return keep_best(weighed, at_label(log_odds, seeds.label), at_least, num_classes)
