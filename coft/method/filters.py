"""The collaborative pseudo-label filter: one rule, one function, one line.

A rule of Phase II takes the predictions of a peer (`own`) and of its partner. It says which labels the peer is trained
on, and how much each of them counts. The setting `filter` names one of `FILTERS`. In Phase I a peer's seeds are weighed
by its partner: `weigh_seeds`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from coft.core.tables import each_row
from coft.labelling.pseudo_labels import Predictions, PseudoLabels, best_of_each

from .negative_prompt import p_clean

Filter = Callable[[Predictions, Predictions], PseudoLabels]
SeedFilter = Callable[[PseudoLabels, Tensor, bool], PseudoLabels]


def both(own: Predictions, partner: Predictions) -> PseudoLabels:
    """The partner's labels; the weight is the minimum of both peers' p_clean."""
    label = partner.label
    return PseudoLabels.of_pool(label, torch.minimum(own.p_clean(label), partner.p_clean(label)))


def both_hard(own: Predictions, partner: Predictions) -> PseudoLabels:
    """As `both`, but labels above 1/2 count in full and the others not at all."""
    return PseudoLabels.of_pool(partner.label, both(own, partner).keep)


def peer(own: Predictions, partner: Predictions) -> PseudoLabels:
    """The partner's labels; the weight is the partner's p_clean."""
    return PseudoLabels.of_pool(partner.label, partner.p_clean(partner.label))


def probability(own: Predictions, partner: Predictions) -> PseudoLabels:
    """As `both`, with softmax probabilities of the positive vectors instead of p_clean."""
    label = partner.label
    return PseudoLabels.of_pool(label, torch.minimum(own.probability_of(label), partner.probability_of(label)))


def oneself(own: Predictions, partner: Predictions) -> PseudoLabels:
    """The peer's own labels; the weight is its own p_clean."""
    return PseudoLabels.of_pool(own.label, own.p_clean(own.label))


def none(own: Predictions, partner: Predictions) -> PseudoLabels:
    """The partner's labels, all of them in full."""
    return PseudoLabels.of_pool(partner.label)


FILTERS: dict[str, Filter] = {
    "both": both,
    "both-hard": both_hard,
    "peer": peer,
    "probability": probability,
    "self": oneself,
    "none": none,
}


HARD = ("both-hard",)  # with these, seeds too count in full or not at all
ALONE = ("self",)  # with these, also the negative vectors of each peer are fitted to its own labels


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
    weight = labels.weight.clone()
    weight[best_of_each(score, labels.label, torch.full((num_classes,), at_least))[0]] = 1
    return PseudoLabels(labels.index, labels.label, weight)


def with_minimum(rule: Filter, at_least: int) -> Filter:
    """A filter that keeps the best `at_least` labels of each class, by the sum of both peers' p_clean."""

    def kept(own: Predictions, partner: Predictions) -> PseudoLabels:
        labels = rule(own, partner)
        score = own.p_clean(labels.label) + partner.p_clean(labels.label)
        return keep_best(labels, score, at_least, own.clean.shape[1])

    return kept


def weigh_seeds(
    seeds: PseudoLabels, log_odds: Tensor, ready: bool, *, clean_rule: str, at_least: int, hard: bool = False
) -> PseudoLabels:
    """Weigh a peer's seeds by the p_clean of its partner, which was not trained on them.

    Args:
        seeds: Of the peer.
        log_odds: The partner's clean log-odds of these images. Shape (n, C).
        ready: Whether the partner can tell right from wrong yet; before, all seeds count in full.
        clean_rule: A name of `CLEAN_RULES`.
        at_least: Seeds of each class that count in full in any case, the best by log-odds.
        hard: Whether seeds above 1/2 count in full and the others not at all.
    """
    if not ready:
        return seeds
    clean = each_row(lambda d, y: p_clean(d, clean_rule).gather(1, y.unsqueeze(1)), log_odds, seeds.label).squeeze(1)
    weight = (clean > 0.5).float() if hard else clean.float()
    score = log_odds.gather(1, seeds.label.unsqueeze(1)).squeeze(1)
    return keep_best(PseudoLabels(seeds.index, seeds.label, weight), score, at_least, log_odds.shape[1])
