"""CoFT with label propagation: first seeds and labels against a linear solver on a naive graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from coft.core import table
from coft.core.table import Table
from coft.labelling import neighbours
from coft.labelling.calibration import Belief
from coft.labelling.neighbours import NeighbourGraph
from coft.labelling.pseudo_labels import Predictions
from tests.coft import naive
from tests.coft.toys import (
    CLASSES,
    PARTNER,
    PEERS,
    make_coft,
    pairs,
    train,
    weights,
)

FIRST = 2  # epoch of Phase II
NEAR = 3  # the root of 30 / 3
Expected = tuple[list[int], Tensor, Tensor]  # labels, probabilities, p_clean


@pytest.fixture(autouse=True)
def _until_convergence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Propagate until convergence."""
    monkeypatch.setattr(neighbours, "STEPS", 300)


def spread(features: Tensor, logits: Tensor) -> Tensor:
    """Log-probabilities after propagation on a naive graph."""
    return naive.smooth(features, NEAR, logits.double().softmax(dim=1)).log()


def clean(odds: Tensor, rule: str) -> Tensor:
    return torch.tensor([[naive.p_clean(row, c, rule) for c in range(CLASSES)] for row in odds.tolist()]).double()


def assert_predicted(predictions: Predictions, expected: Expected) -> None:
    label, probability, p_clean = expected
    assert predictions.label.tolist() == label
    torch.testing.assert_close(predictions.probability.all().double(), probability, atol=1e-4, rtol=0)
    torch.testing.assert_close(predictions.clean.all().double(), p_clean, atol=1e-4, rtol=0)


def first_predictions(method: Any, name: str, rule: str) -> Expected:
    """Labels and probabilities with propagation, and p_clean without."""
    features, adapted = naive.clip_features(method), naive.teacher_features(method)
    before = {peer: naive.without_prior(spread(features, naive.teacher_scores(method)[peer][0])) for peer in PEERS}
    scores = {peer: naive.mixture(adapted[peer], before[peer]).log() for peer in PEERS}
    labels = {peer: scores[peer].argmax(dim=1).tolist() for peer in PEERS}
    probability, odds = scores[name], naive.teacher_scores(method)[name][1]
    if rule == "softmax":
        probability, odds = (naive.calibrated(method, x, labels[PARTNER[name]]) for x in (probability, odds))
    return labels[name], probability.softmax(dim=1), clean(odds, rule)


@pytest.mark.usefixtures("no_seed_limit")
@pytest.mark.parametrize(("tau", "seed"), [(0.0, 1), (0.5, 2)])
def test_first_seeds_are_the_most_confident_after_propagation(tau: float, seed: int) -> None:
    """Each random seed has its own views; peers take the seeds in turn."""
    settings = {"prior_tau": tau, "seeds_per_class": 4, "label_views": 3}
    method = make_coft(settings, seed=seed)
    method.engine.begin()
    plain = naive.zero_shot(method)
    features = naive.clip_features(method)
    logits = naive.mixture(features, naive.without_prior(spread(features, plain), tau)).log()
    most = naive.quotas(logits, 2 * method.per_peer, share=1.0)
    expected = naive.surest(logits, most)
    seeds, likeliest, quotas = method.observer.chosen[0]
    assert torch.equal(likeliest, logits.argmax(dim=1)) and quotas.tolist() == most
    assert pairs(seeds) == [(i, c) for c, members in enumerate(expected) for i in members]
    for n, labels in enumerate(method.labels.values()):
        assert pairs(labels) == [(i, c) for c, members in enumerate(expected) for i in members[n::2]]
    others = naive.surest(plain, naive.quotas(plain, 2 * method.per_peer, share=1.0))
    assert expected != others  # propagation changes the seeds


@pytest.mark.parametrize("rule", ["softmax", "sigmoid"])
def test_first_labels_are_propagated_on_frozen_features(rule: str) -> None:
    method = make_coft({"clean_rule": rule, "label_views": 3})
    train(method, FIRST)
    method.engine.begin_epoch(FIRST)
    expected = {name: first_predictions(method, name, rule) for name in PEERS}
    predictions, labels, _ = method.observer.labels[0]
    for name, partner in PARTNER.items():
        assert_predicted(predictions[name], expected[name])
        label, tables = expected[partner][0], [expected[peer][2] for peer in (name, partner)]
        weight = [min(float(p_clean[i, c]) for p_clean in tables) for i, c in enumerate(label)]
        assert labels[name].label.tolist() == label
        assert labels[name].weight.tolist() == pytest.approx(weight, abs=1e-4)


def test_later_labels_are_not_propagated(monkeypatch: pytest.MonkeyPatch) -> None:
    method: Any = make_coft()
    train(method, FIRST + 2)
    method.belief = Belief(*(Table.of(scores.all()) for scores in (method.belief.scores, method.belief.spread)))
    monkeypatch.setattr(NeighbourGraph, "spread", lambda *args: pytest.fail("propagated"))
    method.engine.begin_epoch(FIRST + 2)
    scores = naive.teacher_scores(method)
    for name, partner in PARTNER.items():
        labels = scores[partner][0].argmax(dim=1).tolist()
        logits, odds = (naive.calibrated(method, x, labels) for x in scores[name])
        expected = logits.argmax(dim=1).tolist(), logits.softmax(dim=1), odds.softmax(dim=1)
        assert_predicted(method.observer.labels[1][0][name], expected)


@pytest.mark.parametrize("anchors", [1000, 12])
def test_the_number_of_rows_at_a_time_changes_rounding_only(anchors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NeighbourGraph.__init__, "__defaults__", (anchors,))
    trained = []
    for rows in (7, table.ROWS):
        monkeypatch.setattr(table, "ROWS", rows)
        method = make_coft()
        train(method)
        trained.append(weights(method))
    for key, value in trained[0].items():
        torch.testing.assert_close(value, trained[1][key], rtol=1e-4, atol=1e-6)
