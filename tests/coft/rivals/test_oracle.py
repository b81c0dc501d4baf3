"""CoFT that knows a part of the truth: a filter and a rule for seeds, in the place of its own."""

from __future__ import annotations

import math

import pytest
import torch

from coft.rivals.oracle import KNOWN, oracle, true_seeds
from tests.coft.method.toys import (
    CLASSES,
    COUNT,
    PARTNER,
    PEERS,
    ToyImages,
    assert_same_bits,
    begun,
    make_coft,
    pairs,
    train,
    weights,
)

TRUTH = (ToyImages().truth + (torch.arange(COUNT) % 4 == 0)) % CLASSES  # not what the images look like, in part
FEW = {"seeds_per_class": 5, "seeds_share": 1.0}


def test_an_oracle_that_tells_nothing_leaves_coft_as_it_is() -> None:
    reported, plain = make_coft(**oracle("nothing", TRUTH)), make_coft()
    train(reported), train(plain)
    assert_same_bits(weights(reported), weights(plain))
    assert KNOWN == ("nothing", "filter", "seeds", "labels")


def test_the_filter_keeps_what_is_right_in_both_phases_from_the_beginning() -> None:
    method = make_coft(FEW, **oracle("filter", TRUTH))
    for epoch in (0, 1):
        begun(method, epoch)
        for name, peer in method.peers.items():
            labels, dual = method.labels[name], method.dual_labels[name]
            right = [int(TRUTH[i]) == y for i, y in pairs(peer.seeds)]
            assert pairs(labels) == pairs(peer.seeds) and labels.weight.tolist() == [float(r) for r in right]
            assert 0 < sum(right) < len(right)
            assert all(y == z or not r for (_, y), z, r in zip(pairs(labels), dual.label.tolist(), right, strict=True))
            counts = [1 + sum(r and y == c for (_, y), r in zip(pairs(labels), right, strict=True)) for c in range(3)]
            assert method.frequency[name].tolist() == pytest.approx([math.log(n / sum(counts)) for n in counts])
    begun(method, 2)
    predictions, given = method.observer.labels[-1]
    for name, partner in PARTNER.items():
        assert torch.equal(given[name].label, predictions[partner].label)
        assert torch.equal(given[name].weight, (predictions[partner].label == TRUTH).float())
        assert method.labels[name].index.tolist() == torch.nonzero(given[name].label == TRUTH).flatten().tolist()


def test_seeds_are_the_likeliest_images_of_each_true_class() -> None:
    method = make_coft(**oracle("seeds", TRUTH))
    method.begin()
    _, logits, _ = method.observer.chosen[0]
    p = logits.double().softmax(dim=1)
    for c in range(CLASSES):
        members = [i for i in range(COUNT) if TRUTH[i] == c]
        best = sorted(members, key=lambda i: -float(p[i, c] / (1 - p[i, c])))[:4]
        found = [peer.seeds.index[peer.seeds.label == c].tolist() for peer in method.peers.values()]
        assert found == [best[0::2], best[1::2]]
    quotas = torch.tensor([1, 0, 99])
    chosen = true_seeds(TRUTH)(logits, quotas)
    assert torch.bincount(chosen.label, minlength=3).tolist() == [1, 0, int((TRUTH == 2).sum())]


def test_phase_two_learns_all_true_labels() -> None:
    method = make_coft(**oracle("labels", TRUTH))
    begun(method, 2)
    for name in PEERS:
        labels = method.labels[name]
        assert torch.equal(labels.label, TRUTH) and bool((labels.weight == 1).all())
