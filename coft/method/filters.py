"""The collaborative pseudo-label filter: one rule, one function, one line.

A rule of Phase II takes the predictions of a peer and of its partner. It says which labels the peer is trained on, and
how much each of them counts. The setting `filter` names one of `FILTERS`. In Phase I a peer's seeds are weighed by its
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


OWN = ("own",)  # with these, also the negative vectors of each peer are fitted to its own labels


def weigh_seeds(seeds: PseudoLabels, clean: Tensor) -> PseudoLabels:
    """Weigh a peer's seeds by its partner's p_clean of them, shape (n,)."""
    return seeds.with_weights(clean)


def weigh_seeds_hard(seeds: PseudoLabels, clean: Tensor) -> PseudoLabels:
    """Let seeds whose p_clean is above 1/2 count in full, and the others not at all."""
    return seeds.with_weights(clean > 0.5)


def keep_seeds(seeds: PseudoLabels, clean: Tensor) -> PseudoLabels:
    """Let all seeds count in full."""
    return seeds


# Filters of Phase I that go with those of Phase II; `weigh_seeds` with all others.
SEED_FILTERS: dict[str, SeedFilter] = {"min-p-clean-hard": weigh_seeds_hard, "none": keep_seeds}
