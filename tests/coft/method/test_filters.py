from __future__ import annotations

import math

import pytest
import torch

from coft.labelling.pseudo_labels import Predictions, PseudoLabels
from coft.method.filters import FILTERS, keep_best, weigh_seeds, with_minimum

N, C = 200, 5


def make_predictions(seed: int) -> Predictions:
    source = torch.Generator().manual_seed(seed)
    probability = (torch.randn(N, C, generator=source) * 2).softmax(dim=1)
    return Predictions(probability.argmax(dim=1), probability, torch.rand(N, C, generator=source))


def naive(rule: str, own: Predictions, partner: Predictions, i: int) -> tuple[int, float]:
    y_own, y = int(own.label[i]), int(partner.label[i])
    least = min(float(own.clean[i, y]), float(partner.clean[i, y]))
    return {
        "both": (y, least),
        "both-hard": (y, float(least > 0.5)),
        "peer": (y, float(partner.clean[i, y])),
        "probability": (y, min(float(x.probability[i, y]) for x in (own, partner))),
        "self": (y_own, float(own.clean[i, y_own])),
        "none": (y, 1.0),
    }[rule]


@pytest.mark.parametrize("rule", FILTERS)
def test_every_rule_equals_a_naive_loop(rule: str) -> None:
    own, partner = make_predictions(0), make_predictions(1)
    labels = FILTERS[rule](own, partner)
    expected = [naive(rule, own, partner, i) for i in range(N)]
    assert [(int(y), float(w)) for y, w in zip(labels.label, labels.weight, strict=True)] == expected
    assert labels.keep.tolist() == [w > 0.5 for _, w in expected]
    assert labels.index.tolist() == list(range(N)) and labels.weight.dtype == torch.float32


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("at_least", [0, 1, 7, 1000])
def test_keep_best_equals_a_naive_loop(at_least: int, soft: bool) -> None:
    source = torch.Generator().manual_seed(3)
    label, score = torch.randint(0, C - 1, (N,), generator=source), torch.rand(N, generator=source).round(decimals=1)
    weight = torch.rand(N, generator=source)
    weight = weight if soft else (weight > 0.8).float()
    index = torch.randperm(N, generator=source)
    result = keep_best(PseudoLabels(index, label, weight), score, at_least, C)
    expected = weight.tolist()
    for c in range(C):
        members = sorted((i for i in range(N) if label[i] == c), key=lambda i: (-score[i].item(), i))
        for i in members[:at_least]:
            expected[i] = 1
    assert result.weight.tolist() == expected
    assert result.label is label and result.index is index


@pytest.mark.parametrize("rule", FILTERS)
@pytest.mark.parametrize("at_least", [0, 3])
def test_a_minimum_is_kept_by_the_word_of_both(rule: str, at_least: int) -> None:
    own, partner = make_predictions(0), make_predictions(1)
    plain, labels = FILTERS[rule](own, partner), with_minimum(FILTERS[rule], at_least)(own, partner)
    expected = plain.weight.tolist()
    for c in range(C):
        members = [i for i in range(N) if plain.label[i] == c]
        for i in sorted(members, key=lambda i: -float(own.clean[i, c] + partner.clean[i, c]))[:at_least]:
            expected[i] = 1
    assert labels.weight.tolist() == expected and torch.equal(labels.label, plain.label)


# -------------------------------------------------------------------- seeds


def seeds_and_odds(right: float = 6.0, wrong: float = -6.0) -> tuple[PseudoLabels, torch.Tensor]:
    """Nine seeds of three classes; the partner sees the next class in the second of each class."""
    label = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    odds = torch.full((9, 3), wrong)
    for i, y in enumerate(label.tolist()):
        odds[i, y] = right - i / 10
        if i % 3 == 1:
            odds[i, y], odds[i, (y + 1) % 3] = 0.5 + i / 10, 1.5
    return PseudoLabels.certain(torch.tensor([30, 10, 20, 50, 40, 60, 80, 70, 90]), label), odds


@pytest.mark.parametrize("rule", ["coupled", "raw"])
@pytest.mark.parametrize("at_least", [0, 1, 3])
def test_seeds_weigh_as_much_as_they_are_likely_clean(rule: str, at_least: int) -> None:
    seeds, odds = seeds_and_odds()
    labels = weigh_seeds(seeds, odds, True, clean_rule=rule, at_least=at_least)
    expected = []
    for d, y in zip(odds.tolist(), seeds.label.tolist(), strict=True):
        expected.append(math.exp(d[y]) / sum(map(math.exp, d)) if rule == "coupled" else 1 / (1 + math.exp(-d[y])))
    for c in range(3):
        members = [i for i in range(9) if seeds.label[i] == c]
        for i in sorted(members, key=lambda i: -float(odds[i, c]))[:at_least]:
            expected[i] = 1.0
    assert labels.weight.tolist() == pytest.approx(expected)
    assert torch.equal(labels.index, seeds.index) and torch.equal(labels.label, seeds.label)
    if rule == "coupled" and at_least < 3:
        assert labels.keep.tolist() == [True, False, True] * 3


def test_all_seeds_count_in_full_while_the_partner_cannot_tell() -> None:
    seeds, odds = seeds_and_odds()
    assert weigh_seeds(seeds, odds, False, clean_rule="raw", at_least=0) is seeds


def test_no_class_is_left_without_seeds() -> None:
    seeds, odds = seeds_and_odds()
    odds[6:] -= 12  # the third class is called unclean as a whole
    labels = weigh_seeds(seeds, odds, True, clean_rule="raw", at_least=1)
    kept = labels.weighted().label[labels.keep]
    assert torch.bincount(kept, minlength=3).tolist() == [3, 3, 1]
