"""A filter, a rule for seeds and a filter of seeds of one's own; tests/docs has light modules and rivals."""

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


def what_reaches_the_loss(method: Any, monkeypatch: pytest.MonkeyPatch, until: int, start: int = 0) -> Trained:
    """Label and weight of every image that each peer is trained on in some epochs."""
    seen: Trained = {name: {} for name in PEERS}
    loss = method.loss

    def watched(name: str, batch: Batch) -> dict[str, Term]:
        labels = batch.labels
        for i, y, w in zip(labels.index.tolist(), labels.label.tolist(), labels.weight.tolist(), strict=True):
            assert seen[name].setdefault(i, (y, w)) == (y, w)
        return loss(name, batch)

    with monkeypatch.context() as patch:
        patch.setattr(method, "loss", watched)
        train(method, until, start)
    return seen


@pytest.mark.parametrize("make", [make_coft, make_plus])
def test_a_filter_of_one_s_own(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels on which both peers agree, by the lower confidence; at even places alone."""
    given: list[PseudoLabels] = []

    def agreeing(peer: Predictions, partner: Predictions) -> PseudoLabels:
        weight = torch.minimum(peer.confidence, partner.confidence)
        weight = weight * (peer.label == partner.label) * (torch.arange(COUNT) % 2 == 0)
        given.append(PseudoLabels.of_pool(partner.label, weight))
        return given[-1]

    method = make(filter=agreeing)
    start = method.phase1_epochs
    train(method, start)
    assert len(given) == 2 * (method.rounds - 1)  # each round after the first begins with labels of both peers
    given.clear()
    seen = what_reaches_the_loss(method, monkeypatch, start + 2, start)
    assert len(given) == 2  # one labelling in two epochs, of each peer
    for labels, name in zip(given, PEERS, strict=True):
        expected = list(zip(labels.label.tolist(), labels.weight.tolist(), strict=True))
        counted = {i: pair for i, pair in seen[name].items() if pair[1]}  # CoFT+ contrasts others, which weigh nothing
        assert 2 < len(counted) == int((labels.weight > 0).sum()) <= COUNT / 2
        assert all(expected[i] == pair for i, pair in counted.items())
        assert pairs(method.labels[name]) == pairs(labels)


def test_a_rule_for_seeds_of_one_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The images of each class in the order in which they are."""
    asked: list[tuple[int, list[int]]] = []

    def first_of_each(scores: Table, per_class: Tensor, num_classes: int) -> PseudoLabels:
        asked.append((len(scores), per_class.tolist()))
        label = likeliest(scores)
        chosen = torch.cat([torch.nonzero(label == c).flatten()[:3] for c in range(num_classes)])
        return PseudoLabels.unweighted(chosen, label[chosen])

    method = make_coft(select_seeds=first_of_each)
    seen = what_reaches_the_loss(method, monkeypatch, 1)
    seeds, likeliest_class, _ = method.observer.chosen[0]
    assert asked == [(COUNT, naive.quotas(F.one_hot(likeliest_class), 4))]
    label = likeliest_class.tolist()
    expected = [[i for i in range(COUNT) if label[i] == c][:3] for c in range(CLASSES)]
    for n, name in enumerate(PEERS):
        runs_of_part = {i: c for c, members in enumerate(expected) for i in members[n::2]}
        assert {i: c for i, (c, _) in seen[name].items()} == runs_of_part
    assert pairs(seeds) == [(i, c) for c, members in enumerate(expected) for i in members]
    train(method, start=1)
    assert not asked[1:]  # Phase II has no seeds


@pytest.mark.usefixtures("all_of_a_class")
def test_a_filter_of_seeds_of_one_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds count by halves, and where the partner finds them less clean than most, not at all."""
    asked: list[tuple[PseudoLabels, Tensor]] = []

    def halves(seeds: PseudoLabels, clean: Tensor) -> PseudoLabels:
        asked.append((seeds, clean))
        return seeds.with_weights(0.5 * (clean > clean.median()).float())

    all_seeds = {"seeds_per_class": 5}
    method, fresh = (make_coft(all_seeds | {"clean_rule": "sigmoid"}, seed_filter=halves) for _ in range(2))
    seen = what_reaches_the_loss(method, monkeypatch, 1)
    for (seeds, clean), (name, partner) in zip(asked, PARTNER.items(), strict=True):
        kept = (clean > clean.median()).tolist()
        assert seen[name] == {i: (y, 0.5 * k) for (i, y), k in zip(pairs(seeds), kept, strict=True)}
        with torch.no_grad():
            odds = fresh.peers[partner].prompted()(method.engine.images.pixels[seeds.index])[1]
        expected = odds.gather(1, seeds.label.unsqueeze(1)).squeeze(1).sigmoid()
        torch.testing.assert_close(clean, expected)


def test_an_observer_changes_no_bit() -> None:
    watched, alone = make_coft(), make_coft(observer=Observer())
    train(watched), train(alone)
    assert_same_bits(weights(watched), weights(alone))
    assert len(watched.observer.filtered) == 2 and len(watched.observer.labels) == 2
