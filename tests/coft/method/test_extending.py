"""User-defined filters, seed rules and seed filters (tests/docs has light modules and rivals)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coft.core.table import Table
from coft.labelling.first_labels import likeliest
from coft.labelling.losses import Term
from coft.labelling.protocol import Batch, Observer
from coft.labelling.pseudo_labels import Predictions, PseudoLabels
from tests.coft import naive
from tests.coft.toys import (
    CLASSES,
    COUNT,
    PARTNER,
    PEERS,
    assert_same_bits,
    make_coft,
    make_plus,
    pairs,
    train,
    weights,
)

Trained = dict[str, dict[int, tuple[int, float]]]  # label and weight of each image, by peer


def labels_in_the_loss(method: Any, monkeypatch: pytest.MonkeyPatch, until: int, start: int = 0) -> Trained:
    """Label and weight of every image that each peer is trained on in a range of epochs."""
    labels_by_peer: Trained = {name: {} for name in PEERS}
    loss = method.loss

    def record(name: str, batch: Batch) -> dict[str, Term]:
        labels = batch.labels
        for i, y, w in zip(labels.index.tolist(), labels.label.tolist(), labels.weight.tolist(), strict=True):
            assert labels_by_peer[name].setdefault(i, (y, w)) == (y, w)
        return loss(name, batch)

    with monkeypatch.context() as patch:
        patch.setattr(method, "loss", record)
        train(method, until, start)
    return labels_by_peer


@pytest.mark.parametrize("make", [make_coft, make_plus])
def test_a_user_defined_filter(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps images with even index on which both peers agree, with the lower confidence."""
    results: list[PseudoLabels] = []

    def agreeing(peer: Predictions, partner: Predictions) -> PseudoLabels:
        weight = torch.minimum(peer.confidence, partner.confidence)
        weight = weight * (peer.label == partner.label) * (torch.arange(COUNT) % 2 == 0)
        results.append(PseudoLabels.of_pool(partner.label, weight))
        return results[-1]

    method = make(filter=agreeing)
    start = method.phase1_epochs
    train(method, start)
    assert len(results) == 2 * (method.rounds - 1)  # one labelling of both peers per round after the first
    results.clear()
    trained = labels_in_the_loss(method, monkeypatch, start + 2, start)
    assert len(results) == 2  # one labelling of each peer in two epochs
    for labels, name in zip(results, PEERS, strict=True):
        expected = list(zip(labels.label.tolist(), labels.weight.tolist(), strict=True))
        weighted = {i: pair for i, pair in trained[name].items() if pair[1]}  # CoFT+ contrasts others as well
        assert 2 < len(weighted) == int((labels.weight > 0).sum()) <= COUNT / 2
        assert all(expected[i] == pair for i, pair in weighted.items())
        assert pairs(method.labels[name]) == pairs(labels)


def test_a_user_defined_seed_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the first images of each class."""
    calls: list[tuple[int, list[int]]] = []

    def first_of_each(scores: Table, per_class: Tensor, num_classes: int) -> PseudoLabels:
        calls.append((len(scores), per_class.tolist()))
        label = likeliest(scores)
        chosen = torch.cat([torch.nonzero(label == c).flatten()[:3] for c in range(num_classes)])
        return PseudoLabels.unweighted(chosen, label[chosen])

    method = make_coft(select_seeds=first_of_each)
    trained = labels_in_the_loss(method, monkeypatch, 1)
    seeds, likeliest_class, _ = method.observer.chosen[0]
    assert calls == [(COUNT, naive.quotas(F.one_hot(likeliest_class), 4))]
    label = likeliest_class.tolist()
    expected = [[i for i in range(COUNT) if label[i] == c][:3] for c in range(CLASSES)]
    for n, name in enumerate(PEERS):
        expected_labels = {i: c for c, members in enumerate(expected) for i in members[n::2]}
        assert {i: c for i, (c, _) in trained[name].items()} == expected_labels
    assert pairs(seeds) == [(i, c) for c, members in enumerate(expected) for i in members]
    train(method, start=1)
    assert not calls[1:]  # Phase II selects no seeds


@pytest.mark.usefixtures("no_seed_limit")
def test_a_user_defined_seed_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weighs seeds with p_clean above the median by 0.5 and others by 0."""
    calls: list[tuple[PseudoLabels, Tensor]] = []

    def halves(seeds: PseudoLabels, clean: Tensor) -> PseudoLabels:
        calls.append((seeds, clean))
        return seeds.with_weights(0.5 * (clean > clean.median()).float())

    all_seeds = {"seeds_per_class": 5}
    method, fresh = (make_coft(all_seeds | {"clean_rule": "sigmoid"}, seed_filter=halves) for _ in range(2))
    trained = labels_in_the_loss(method, monkeypatch, 1)
    for (seeds, clean), (name, partner) in zip(calls, PARTNER.items(), strict=True):
        kept = (clean > clean.median()).tolist()
        assert trained[name] == {i: (y, 0.5 * k) for (i, y), k in zip(pairs(seeds), kept, strict=True)}
        with torch.no_grad():
            odds = fresh.peers[partner].prompted()(method.engine.images.pixels[seeds.index])[1]
        expected = odds.gather(1, seeds.label.unsqueeze(1)).squeeze(1).sigmoid()
        torch.testing.assert_close(clean, expected)


def test_an_observer_changes_no_bit() -> None:
    observed, plain = make_coft(), make_coft(observer=Observer())
    train(observed), train(plain)
    assert_same_bits(weights(observed), weights(plain))
    assert len(observed.observer.filtered) == 2 and len(observed.observer.labels) == 2
