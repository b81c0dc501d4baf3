"""CoFT that knows a part of the truth: a filter and a rule for seeds, in the place of its own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sklearn.metrics import roc_auc_score

from coft.core.table import Table
from coft.engine.optimizers import schedule_of
from coft.labelling import mixture, neighbours
from coft.labelling.pseudo_labels import Predictions
from coft.method.coft_settings import Phase2
from scripts.oracle.method import KNOWN, right_labels, surest, true_seeds
from tests.coft.naive import zero_shot
from tests.coft.toys import (
    CLASSES,
    COUNT,
    PARTNER,
    PEERS,
    ToyImages,
    assert_same_bits,
    begun,
    make_coft,
    train,
    weights,
)

from .making import make_oracle

TRUTH = (ToyImages().truth + (torch.arange(COUNT) % 4 == 0)) % CLASSES  # not what the images look like, in part
FEW = {"seeds_per_class": 5}


def test_an_oracle_that_tells_nothing_leaves_coft_as_it_is() -> None:
    with_oracle, plain = make_oracle(TRUTH), make_coft()
    train(with_oracle), train(plain)
    assert_same_bits(weights(with_oracle), weights(plain))
    assert KNOWN == ("nothing", "filter", "seeds", "labels")


def test_the_filter_keeps_what_is_right_in_phase_two() -> None:
    method = make_oracle(TRUTH, FEW, knows="filter")
    begun(method, 2)
    predictions, given, _ = method.observer.labels[-1]
    for name, partner in PARTNER.items():
        label = predictions[partner].label
        assert torch.equal(given[name].label, label)
        assert torch.equal(given[name].weight, (label == TRUTH).float())
        (stream,) = method.streams()[name]
        assert stream.index.tolist() == torch.nonzero(label == TRUTH).flatten().tolist()


def some_predictions(count: int, classes: int, flip: bool = False) -> Predictions:
    source = torch.Generator().manual_seed(3)
    clean = torch.rand(count, classes, generator=source)
    table = Table.of(clean.flip(0) if flip else clean)
    return Predictions(torch.randint(classes, (count,), generator=source), table, table)


@pytest.mark.parametrize("auroc", [0.5, 0.8, 1.0])
def test_a_filter_that_errs_has_the_auroc_that_it_should_have(auroc: float) -> None:
    both = some_predictions(20_000, 3)
    truth = torch.randint(3, (20_000,), generator=torch.Generator().manual_seed(4))
    rule = right_labels(truth, auroc, seed=1)
    kept, again = rule(both, both).weight, rule(both, both).weight
    assert torch.equal(kept, again)
    assert roc_auc_score((both.label == truth).numpy(), kept.numpy()) == pytest.approx(auroc, abs=0.015)
    assert not torch.equal(kept, right_labels(truth, auroc, seed=2)(both, both).weight) or auroc == 1


@pytest.mark.parametrize("coverage", [0.3, 1.0])
def test_coverage_is_a_share_of_each_class_the_surest_by_both(coverage: float) -> None:
    peer, partner = some_predictions(50, 3), some_predictions(50, 3, flip=True)
    clean = peer.clean.all().tolist(), partner.clean.all().tolist()
    labels = surest(coverage, 3)(peer, partner)
    for c in range(3):
        members = [i for i in range(50) if int(partner.label[i]) == c]
        score = {i: min(clean[0][i][c], clean[1][i][c]) for i in members}
        best = sorted(members, key=lambda i: -score[i])[: math.ceil(coverage * len(members))]
        assert [i for i in members if labels.weight[i]] == sorted(best)
    assert torch.equal(labels.label, partner.label)


def test_coverage_takes_the_place_of_the_filter() -> None:
    method = make_oracle(TRUTH, coverage=0.5)
    begun(method, 2)
    for labels in method.labels.values():
        counts = torch.bincount(labels.label, minlength=CLASSES).tolist()
        kept = torch.bincount(labels.counting().label, minlength=CLASSES).tolist()
        assert kept == [math.ceil(count / 2) for count in counts]


def rates(rate: str) -> list[float]:
    """Learning rates of the 32 steps of Phase II, as shares of the first."""
    method = make_oracle(TRUTH, {"phase2": Phase2(epochs=4)}, rate=rate)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, seen = schedule_of(optimizer, method.tuning(2)), list[float]()
    for _ in range(32):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_learning_rates_of_phase_two() -> None:
    assert rates("cosine") == pytest.approx([(1 + math.cos(math.pi * i / 32)) / 2 for i in range(32)])
    assert rates("constant") == [1.0] * 32
    assert rates("restart") == pytest.approx(2 * [(1 + math.cos(math.pi * i / 16)) / 2 for i in range(16)])


def test_learning_rates_of_phase_one_are_those_of_coft() -> None:
    for rate in ("constant", "restart"):
        assert make_oracle(TRUTH, rate=rate).tuning(1) == make_coft().tuning(1)


def test_seeds_are_the_likeliest_images_of_each_true_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "SHARE", 0.0)  # neighbours and other images have no share in what an image is
    monkeypatch.setattr(mixture, "calibrated", lambda *args: 1e30)
    method: Any = make_oracle(TRUTH, knows="seeds")
    method.engine.begin()
    logits = zero_shot(method)
    p = logits.softmax(dim=1)
    quotas = method.observer.chosen[0][2].tolist()
    for c in range(CLASSES):
        members = [i for i in range(COUNT) if TRUTH[i] == c]
        best = sorted(members, key=lambda i: -float(p[i, c] / (1 - p[i, c])))[: quotas[c]]
        seeds = [method.labels[name].index[method.labels[name].label == c].tolist() for name in PEERS]
        assert seeds == [best[0::2], best[1::2]] and quotas[c] == 4
    chosen = true_seeds(TRUTH)(Table.of(logits), torch.tensor([1, 0, 99]), CLASSES)
    assert torch.bincount(chosen.label, minlength=3).tolist() == [1, 0, int((TRUTH == 2).sum())]


def test_phase_two_learns_all_true_labels() -> None:
    method = make_oracle(TRUTH, knows="labels")
    begun(method, 2)
    for name in PEERS:
        labels = method.labels[name]
        assert torch.equal(labels.label, TRUTH) and bool((labels.weight == 1).all())
