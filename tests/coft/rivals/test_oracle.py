"""CoFT that knows a part of the truth: a filter and a rule for seeds, in the place of its own."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from sklearn.metrics import roc_auc_score

from coft.labelling.pseudo_labels import Predictions
from coft.rivals.oracle import KNOWN, OracleSettings, oracle, right_labels, schedule_of, surest, true_seeds
from tests.coft.method.toys import (
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

TRUTH = (ToyImages().truth + (torch.arange(COUNT) % 4 == 0)) % CLASSES  # not what the images look like, in part
FEW = {"seeds_per_class": 5, "seeds_share": 1.0}


def experiment(**changes: Any) -> dict[str, Any]:
    return oracle(replace(OracleSettings(), **changes), TRUTH, seed=1)


def test_an_oracle_that_tells_nothing_leaves_coft_as_it_is() -> None:
    reported, plain = make_coft(**experiment()), make_coft()
    train(reported), train(plain)
    assert_same_bits(weights(reported), weights(plain))
    assert KNOWN == ("nothing", "filter", "seeds", "labels")


def test_the_filter_keeps_what_is_right_in_phase_two() -> None:
    method = make_coft(FEW, **experiment(knows="filter"))
    begun(method, 2)
    predictions, given = method.observer.labels[-1]
    for name, partner in PARTNER.items():
        assert torch.equal(given[name].label, predictions[partner].label)
        assert torch.equal(given[name].weight, (predictions[partner].label == TRUTH).float())
        assert method.labels[name].index.tolist() == torch.nonzero(given[name].label == TRUTH).flatten().tolist()


def some_predictions(count: int, classes: int) -> Predictions:
    source = torch.Generator().manual_seed(3)
    clean = torch.rand(count, classes, generator=source)
    return Predictions(torch.randint(classes, (count,), generator=source), clean, clean)


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
    own, partner = some_predictions(50, 3), some_predictions(50, 3)
    partner.clean.copy_(partner.clean.flip(0))
    labels = surest(coverage)(own, partner)
    for c in range(3):
        members = [i for i in range(50) if int(partner.label[i]) == c]
        score = {i: min(float(own.clean[i, c]), float(partner.clean[i, c])) for i in members}
        best = sorted(members, key=lambda i: -score[i])[: math.ceil(coverage * len(members))]
        assert [i for i in members if labels.weight[i]] == sorted(best)
    assert torch.equal(labels.label, partner.label)


def rates(rate: str, steps: int = 8) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, found = schedule_of(rate, 2)(optimizer, steps), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_learning_rates_of_phase_two() -> None:
    assert rates("cosine") == pytest.approx([(1 + math.cos(math.pi * i / 8)) / 2 for i in range(8)])
    assert rates("constant") == [1.0] * 8
    assert rates("restart") == pytest.approx(2 * [(1 + math.cos(math.pi * i / 4)) / 2 for i in range(4)])


def test_seeds_are_the_likeliest_images_of_each_true_class() -> None:
    method = make_coft(**experiment(knows="seeds"))
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
    method = make_coft(**experiment(knows="labels"))
    begun(method, 2)
    for name in PEERS:
        labels = method.labels[name]
        assert torch.equal(labels.label, TRUTH) and bool((labels.weight == 1).all())
