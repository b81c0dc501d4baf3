"""CoFT with its graph of neighbours: first seeds, first labels and rounds, against a linear solver on a naive graph."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from coft.core import disk_tables
from coft.core.world import ALONE
from coft.labelling import neighbours
from coft.labelling.neighbours import NeighbourGraph
from coft.labelling.pseudo_labels import Predictions
from coft.method.labeller import predict
from coft.method.protocol import Runtime
from tests.coft.labelling.test_neighbours import naive_smooth
from tests.coft.method.test_coft_seeds import naive_quotas, surest, without_prior, zero_shot
from tests.coft.method.toys import (
    CLASSES,
    COUNT,
    PARTNER,
    PEERS,
    assert_same_bits,
    begun,
    make_coft,
    pairs,
    train,
    weights,
)

FIRST = 2  # epoch of Phase II
NEAR = 3  # the root of 30 / 3


@pytest.fixture(autouse=True)
def _in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values spread until nothing changes any more."""
    monkeypatch.setattr(neighbours, "STEPS", 300)


def spread(features: Tensor, logits: Tensor) -> Tensor:
    """Log-probabilities after they have spread over a naive graph."""
    return naive_smooth(features, NEAR, logits.double().softmax(dim=1)).log()


def frozen(method: Any) -> Tensor:
    """Features of all images under the frozen CLIP, those of the first seeds. Shape (N, embed_dim)."""
    return method.backbone.image_features(method.images, method.settings.label_views, (1, "labels", 0))


def naive_predictions(method: Any, rule: str) -> dict[str, tuple[list[int], Tensor, Tensor]]:
    """Each peer's labels, probabilities and p_clean, from the scores of all images."""
    own, features = method.settings, frozen(method)
    scores = method.labeller.score(method.pair.teachers(), own.label_views, method.epoch)
    found = {}
    for name in PEERS:
        plus, odds = (without_prior(table.double(), own.prior_tau) for table in scores[name])
        rows = without_prior(spread(features, plus), own.prior_tau).tolist()
        clean = [[1 / (1 + math.exp(-d)) for d in row] for row in odds.tolist()]
        p_clean = odds.softmax(dim=1) if rule == "coupled" else torch.tensor(clean, dtype=torch.float64)
        found[name] = [row.index(max(row)) for row in rows], naive_smooth(features, NEAR, plus.softmax(dim=1)), p_clean
    return found


def assert_predicted(own: Predictions, expected: tuple[list[int], Tensor, Tensor]) -> None:
    label, probability, clean = expected
    assert own.label.tolist() == label
    torch.testing.assert_close(own.probability.double(), probability, atol=1e-4, rtol=0)
    torch.testing.assert_close(own.clean.double(), clean, atol=1e-4, rtol=0)


@pytest.mark.parametrize("tau", [0.0, 0.5])
def test_first_seeds_are_the_surest_after_probabilities_have_spread(tau: float) -> None:
    method = make_coft({"prior_tau": tau, "seeds_per_class": 4, "seeds_share": 1.0, "label_views": 3})
    method.begin()
    alone = zero_shot(method, 1)
    logits = spread(frozen(method), alone)
    quotas = naive_quotas(logits, 2 * method.per_peer, share=1.0)
    expected = surest(logits, quotas)
    seeds, seen, given = method.observer.chosen[0]
    torch.testing.assert_close(seen.exp(), logits.exp(), atol=1e-4, rtol=0)
    assert given.tolist() == quotas
    assert pairs(seeds) == [(i, c) for c, members in enumerate(expected) for i in members]
    for n, peer in enumerate(method.peers.values()):
        assert pairs(peer.seeds) == [(i, c) for c, members in enumerate(expected) for i in members[n::2]]
    assert expected != surest(alone, naive_quotas(alone, 2 * method.per_peer, share=1.0))  # neighbours have a say


@pytest.mark.usefixtures("none_in_any_case")
@pytest.mark.parametrize("rule", ["coupled", "raw"])
def test_first_labels_spread_among_images_that_are_alike_to_the_frozen_clip(rule: str) -> None:
    method = make_coft({"clean_rule": rule, "label_views": 3})
    train(method, FIRST)
    method.begin_epoch(FIRST)
    expected = naive_predictions(method, rule)
    predictions, given = method.observer.labels[0]
    for name, partner in PARTNER.items():
        assert_predicted(predictions[name], expected[name])
        label, clean = expected[partner][0], [expected[who][2] for who in (name, partner)]
        weight = [min(float(table[i, c]) for table in clean) for i, c in enumerate(label)]
        assert given[name].label.tolist() == label
        assert given[name].weight.tolist() == pytest.approx(weight, abs=1e-4)


def test_neighbours_and_the_second_correction_change_first_labels() -> None:
    method = make_coft()
    begun(method, FIRST)
    scores = method.labeller.score(method.pair.teachers(), 2, FIRST)
    predictions = method.observer.labels[0][0]
    for name in PEERS:
        plus = without_prior(scores[name][0].double())
        assert predictions[name].label.tolist() != plus.argmax(dim=1).tolist()
        assert not torch.allclose(predictions[name].probability.double(), plus.softmax(dim=1), atol=0.05)


def test_later_labels_are_each_image_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    method = make_coft()
    train(method, FIRST + 2)
    monkeypatch.setattr(method, "neighbours", partial(pytest.fail, "frozen features know less by now"))
    method.begin_epoch(FIRST + 2)
    scores = method.labeller.score(method.pair.teachers(), 2, FIRST + 2)
    for name in PEERS:
        plus, odds = (without_prior(table.double()) for table in scores[name])
        own = plus.argmax(dim=1).tolist(), plus.softmax(dim=1), odds.softmax(dim=1)
        assert_predicted(method.observer.labels[1][0][name], own)


def test_a_model_s_predictions_without_a_graph_are_its_own_and_with_one_those_of_a_linear_solver() -> None:
    source = torch.Generator().manual_seed(0)
    features, plus, odds = (torch.randn(COUNT, size, generator=source) for size in (6, CLASSES, CLASSES))
    corrected = [without_prior(table.double(), 0.5) for table in (plus, odds)]
    said = without_prior(spread(features, corrected[0]), 0.5)
    smooth = naive_smooth(features, NEAR, corrected[0].softmax(dim=1))
    found = predict(plus, odds, 0.5, "coupled", NeighbourGraph(features, NEAR))
    assert found.probability is plus and found.clean is odds  # in place: there may be no room for others
    assert_predicted(found, (said.argmax(dim=1).tolist(), smooth, corrected[1].softmax(dim=1)))


def test_mapped_tables_change_no_bit(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_tables, "IN_MEMORY", 0)
    monkeypatch.setattr("coft.core.tables.ROWS", 7)
    found = []
    for anchors in (1000, 12):
        monkeypatch.setattr(NeighbourGraph.__init__, "__defaults__", (anchors, ALONE))
        for runtime in (Runtime(1), Runtime(1, allocate=disk_tables.tables_in(tmp_path))):
            method = make_coft(runtime=runtime)
            train(method)
            found.append(weights(method))
    assert_same_bits(*found[:2])
    assert_same_bits(*found[2:])
    assert any(not torch.equal(value, found[2][key]) for key, value in found[0].items())
    assert not list(tmp_path.iterdir())
