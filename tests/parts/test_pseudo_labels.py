from __future__ import annotations

import math

import pytest
import torch

from trainers.parts.pseudo_labels import FILTERS, Lesson, Opinion, keep_best, log_frequency

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


def naive(rule: str, own: Opinion, other: Opinion, i: int) -> tuple[int, bool]:
    y_own, y_other = int(own.labels[i]), int(other.labels[i])
    own_says, other_says = own.clean[i, y_other] > 0.5, other.clean[i, y_other] > 0.5
    return {
        "both": (y_other, bool(own_says and other_says)),
        "peer": (y_other, bool(other_says)),
        "agree": (y_other, y_own == y_other),
        "self": (y_own, bool(own.clean[i, y_own] > 0.5)),
        "none": (y_other, True),
        "threshold-0.5": (y_other, bool(other.confidence[i] > 0.5)),
        "threshold-0.95": (y_other, bool(other.confidence[i] > 0.95)),
    }[rule]


@pytest.mark.parametrize("rule", FILTERS)
def test_every_rule_equals_a_naive_loop(rule: str) -> None:
    own, other = make_opinion(0), make_opinion(1)
    lesson = FILTERS[rule](own, other)
    assert [(int(y), bool(k)) for y, k in zip(lesson.labels, lesson.keep, strict=True)] == [
        naive(rule, own, other, i) for i in range(N)
    ]


@pytest.mark.parametrize("at_least", [0, 1, 7, 1000])
def test_keep_best_equals_a_naive_loop(at_least: int) -> None:
    source = torch.Generator().manual_seed(3)
    labels, score = torch.randint(0, C - 1, (N,), generator=source), torch.rand(N, generator=source).round(decimals=1)
    keep = torch.rand(N, generator=source) > 0.8
    result = keep_best(Lesson(labels, keep), score, at_least, C)
    expected = keep.tolist()
    for c in range(C):
        members = sorted((i for i in range(N) if labels[i] == c), key=lambda i: (-score[i].item(), i))
        for i in members[:at_least]:
            expected[i] = True
    assert result.keep.tolist() == expected
    assert torch.equal(result.labels, labels)


def test_log_frequency_is_finite_for_a_class_without_images() -> None:
    log_prior = log_frequency(torch.tensor([0, 0, 0, 2]), 3)
    assert log_prior.tolist() == pytest.approx([math.log(4 / 7), math.log(1 / 7), math.log(2 / 7)])
