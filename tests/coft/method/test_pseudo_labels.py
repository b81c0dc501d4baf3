from __future__ import annotations

import math

import pytest
import torch

from coft.method.pseudo_labels import FILTERS, Lesson, Opinion, harden, keep_best, log_frequency

N, C = 200, 5


def make_opinion(seed: int) -> Opinion:
    source = torch.Generator().manual_seed(seed)
    probabilities = (torch.randn(N, C, generator=source) * 2).softmax(dim=1)
    return Opinion(probabilities.argmax(dim=1), probabilities, torch.rand(N, C, generator=source))


def test_confidence_and_margin_equal_a_naive_loop() -> None:
    opinion = make_opinion(2)
    for i, row in enumerate(opinion.probabilities.tolist()):
        best, second = sorted(row)[-1], sorted(row)[-2]
        assert opinion.confidence[i].item() == pytest.approx(best)
        assert opinion.margin[i].item() == pytest.approx(best - second, abs=1e-7)
        assert opinion.probability_of(opinion.labels)[i].item() == pytest.approx(best)


def naive(rule: str, own: Opinion, other: Opinion, i: int) -> tuple[int, float]:
    y_own, y_other = int(own.labels[i]), int(other.labels[i])
    own_says, other_says = float(own.clean[i, y_other]), float(other.clean[i, y_other])
    return {
        "both": (y_other, min(own_says, other_says)),
        "peer": (y_other, other_says),
        "probability": (y_other, min(float(x.probabilities[i, y_other]) for x in (own, other))),
        "agree": (y_other, float(y_own == y_other)),
        "self": (y_own, float(own.clean[i, y_own])),
        "none": (y_other, 1.0),
        "threshold-0.5": (y_other, float(other.confidence[i] > 0.5)),
        "threshold-0.95": (y_other, float(other.confidence[i] > 0.95)),
    }[rule]


@pytest.mark.parametrize("rule", FILTERS)
def test_every_rule_equals_a_naive_loop(rule: str) -> None:
    own, other = make_opinion(0), make_opinion(1)
    lesson = FILTERS[rule](own, other)
    expected = [naive(rule, own, other, i) for i in range(N)]
    assert [(int(y), float(w)) for y, w in zip(lesson.labels, lesson.weight, strict=True)] == expected
    hard = harden(lesson)
    assert hard.labels is lesson.labels and [float(w) for w in hard.weight] == [w > 0.5 for _, w in expected]
    assert torch.equal(hard.keep, lesson.keep)


def test_hard_both_keeps_what_both_call_clean() -> None:
    own, other = make_opinion(0), make_opinion(1)
    kept = harden(FILTERS["both"](own, other)).keep
    for i, label in enumerate(other.labels.tolist()):
        assert kept[i] == (own.clean[i, label] > 0.5 and other.clean[i, label] > 0.5)


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("at_least", [0, 1, 7, 1000])
def test_keep_best_equals_a_naive_loop(at_least: int, soft: bool) -> None:
    source = torch.Generator().manual_seed(3)
    labels, score = torch.randint(0, C - 1, (N,), generator=source), torch.rand(N, generator=source).round(decimals=1)
    weight = torch.rand(N, generator=source)
    weight = weight if soft else weight > 0.8
    result = keep_best(Lesson(labels, weight), score, at_least, C)
    expected = weight.tolist()
    for c in range(C):
        members = sorted((i for i in range(N) if labels[i] == c), key=lambda i: (-score[i].item(), i))
        for i in members[:at_least]:
            expected[i] = 1
    assert result.weight.tolist() == expected
    assert torch.equal(result.labels, labels)


def test_log_frequency_is_finite_for_a_class_without_images() -> None:
    log_prior = log_frequency(torch.tensor([0, 0, 0, 2]), torch.ones(4), 3)
    assert log_prior.tolist() == pytest.approx([math.log(4 / 7), math.log(1 / 7), math.log(2 / 7)])


def test_log_frequency_counts_weights() -> None:
    log_prior = log_frequency(torch.tensor([0, 0, 1]), torch.tensor([0.5, 0.25, 1.0]), 2)
    assert log_prior.exp().tolist() == pytest.approx([1.75 / 3.75, 2 / 3.75])
