"""Collaborative pseudo-label filters, each a function of a line or two.

A filter of Phase II takes the predictions of a peer and of its partner, and returns the labels that the peer is trained
on, with their weights. The setting `filter` names one of `FILTERS`. In Phase I, a peer's seeds are weighted by its
partner: `weigh_seeds`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from coft.labelling.pseudo_labels import Predictions, PseudoLabels

Filter = Callable[[Predictions, Predictions], PseudoLabels]
SeedFilter = Callable[[PseudoLabels, Tensor], PseudoLabels]  # seeds, and the partner's p_clean of their labels (n,)


def min_p_clean(peer: Predictions, partner: Predictions) -> PseudoLabels:
    """Return the partner's labels, weighted by the minimum of both peers' p_clean."""
    label = partner.label
    return PseudoLabels.of_pool(label, torch.minimum(peer.p_clean(label), partner.p_clean(label)))


def min_p_clean_hard(peer: Predictions, partner: Predictions) -> PseudoLabels:
    """Return the labels of `min_p_clean`, with weight 1 if that weight is above 1/2, else 0."""
    return PseudoLabels.of_pool(partner.label, min_p_clean(peer, partner).keep)


def partner_labels(peer: Predictions, partner: Predictions) -> PseudoLabels:
    """Return the partner's labels, weighted by the partner's p_clean."""
    return PseudoLabels.of_pool(partner.label, partner.p_clean(partner.label))


def min_softmax(peer: Predictions, partner: Predictions) -> PseudoLabels:
    """Return the partner's labels, weighted by the minimum of both peers' softmax (without negative vectors)."""
    label = partner.label
    return PseudoLabels.of_pool(label, torch.minimum(peer.probability_of(label), partner.probability_of(label)))


def own_labels(peer: Predictions, partner: Predictions) -> PseudoLabels:
    """Return the peer's own labels, weighted by its own p_clean."""
    return PseudoLabels.of_pool(peer.label, peer.p_clean(peer.label))


def none(peer: Predictions, partner: Predictions) -> PseudoLabels:
    """Return the partner's labels, all with weight 1."""
    return PseudoLabels.of_pool(partner.label)


FILTERS: dict[str, Filter] = {
    "min-p-clean": min_p_clean,
    "min-p-clean-hard": min_p_clean_hard,
    "partner": partner_labels,
    "min-softmax": min_softmax,
    "own": own_labels,
    "none": none,
}


OWN = ("own",)  # filters with which a peer's negative vectors, too, are fitted to its own labels


def weigh_seeds(seeds: PseudoLabels, clean: Tensor) -> PseudoLabels:
    """Weight a peer's seeds by the partner's p_clean of their labels, shape (n,)."""
    return seeds.with_weights(clean)


def weigh_seeds_hard(seeds: PseudoLabels, clean: Tensor) -> PseudoLabels:
    """Give weight 1 to seeds whose p_clean is above 1/2, and 0 to the others."""
    return seeds.with_weights(clean > 0.5)


def keep_seeds(seeds: PseudoLabels, clean: Tensor) -> PseudoLabels:
    """Return the seeds unchanged."""
    return seeds


# Seed filter of Phase I by filter of Phase II; `weigh_seeds` for all others.
SEED_FILTERS: dict[str, SeedFilter] = {"min-p-clean-hard": weigh_seeds_hard, "none": keep_seeds}
