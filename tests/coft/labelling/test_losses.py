"""Losses on pseudo-labels against naive loops."""

from __future__ import annotations

import math

import pytest
import torch

from coft.labelling.losses import (
    adjusted_cross_entropy,
    average_predictions,
    fairness_term,
    log_mean,
    weighted_cross_entropy,
)
from coft.labelling.pseudo_labels import PseudoLabels


def some_labels(weight: list[float]) -> PseudoLabels:
    label = torch.tensor([0, 2, 2, 1, 0, 1])[: len(weight)]
    return PseudoLabels.of_pool(label, torch.tensor(weight))


@pytest.mark.parametrize(
    "weight", [[1.0, 0.0, 1.0, 1.0, 0.0, 0.0], [0.5, 1.0, 0.0, 0.9, 0.3, 0.1], [0.1, 0.0, 0.2, 0.0, 0.3, 0.1]]
)
def test_adjusted_cross_entropy_equals_a_naive_loop(weight: list[float]) -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = some_labels(weight)
    counts = [1 + sum(w for w, y in zip(weight, labels.label.tolist(), strict=True) if y == c) for c in range(3)]
    losses = []
    for row, label, w in zip(logits, labels.label.tolist(), weight, strict=True):
        odds = [count / sum(counts) * x.exp() for count, x in zip(counts, row, strict=True)]
        losses.append(-w * torch.log(odds[label] / sum(odds)))
    expected = sum(losses) / max(1.0, sum(weight))  # small weights do not make large steps
    term = adjusted_cross_entropy(logits, labels, labels, labels.log_frequency(3))
    torch.testing.assert_close(term.mean, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (term.mean, expected)))
    assert term.coefficient == 1


@pytest.mark.parametrize("weight", [[0.5, 1.0, 0.0, 0.9, 0.3, 0.1], [0.1, 0.0, 0.2, 0.0, 0.3, 0.1]])
def test_weighted_cross_entropy_equals_a_naive_loop(weight: list[float]) -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    labels = some_labels(weight)
    rows = zip(logits.softmax(dim=1), labels.label.tolist(), weight, strict=True)
    expected = sum(-w * float(p[y].log()) for p, y, w in rows) / max(1.0, sum(weight))
    assert float(weighted_cross_entropy(logits, labels, labels).mean) == pytest.approx(expected)


def test_losses_of_parts_sum_to_that_of_the_batch() -> None:
    logits, labels = (
        torch.randn(6, 3, generator=torch.Generator().manual_seed(1)),
        some_labels([0.5, 1, 0, 0.9, 0.3, 1]),
    )
    frequency = labels.log_frequency(3)
    whole = adjusted_cross_entropy(logits, labels, labels, frequency).mean
    parts = [slice(0, 2), slice(2, 3), slice(3, 6)]
    losses = [adjusted_cross_entropy(logits[part], labels.at(part), labels, frequency).mean for part in parts]
    torch.testing.assert_close(sum(losses), whole)


def test_cross_entropy_with_zero_weights_is_zero_with_zero_gradients() -> None:
    logits = torch.randn(3, 3, requires_grad=True)
    labels = some_labels([0.0, 0.0, 0.0])
    loss = adjusted_cross_entropy(logits, labels, labels, labels.log_frequency(3)).mean
    loss.backward()
    assert loss.item() == 0 and torch.equal(logits.grad, torch.zeros(3, 3))


def test_fairness_equals_a_naive_loop_also_in_parts() -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    logits.data[:, 2] -= 40  # a class that vanishes has no gradient
    probability = logits.softmax(dim=1)
    mean = [sum(float(row[c]) for row in probability.detach()) / 6 for c in range(3)]
    expected = -sum(math.log(max(q, 1e-6)) for q in mean) / 3
    whole = fairness_term(probability, 6, 0.7)["unfair"]
    assert whole.mean.item() == pytest.approx(expected) and whole.coefficient == 0.7
    naive = -sum(torch.log(sum(row[c] for row in probability) / 6) for c in range(2)) / 3
    gradient = torch.autograd.grad(naive, logits, retain_graph=True)[0]
    parts = [
        fairness_term(probability[part], 6, 0.7, torch.tensor(mean, dtype=torch.float64))["unfair"]
        for part in (slice(0, 1), slice(1, 4), slice(4, 6))
    ]
    assert sum(part.mean.item() for part in parts) == pytest.approx(expected)
    for losses in ([whole], parts):
        total = sum(term.mean for term in losses)
        torch.testing.assert_close(torch.autograd.grad(total, logits, retain_graph=True)[0], gradient)
    assert fairness_term(probability, 6, 0.0) == {}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_predictions_are_averaged_as_probabilities(count: int) -> None:
    source = torch.Generator().manual_seed(count)
    logits = [torch.randn(4, 3, generator=source) * 5 for _ in range(count)]
    averaged = average_predictions(logits)
    assert torch.equal(averaged, logits[0]) == (count == 1)
    for i, row in enumerate(averaged.softmax(dim=1).tolist()):
        probabilities = [x[i].exp() / x[i].exp().sum() for x in logits]
        assert row == pytest.approx((sum(probabilities) / count).tolist(), abs=1e-6)
    if count > 1:
        named = {str(n): x.softmax(dim=1) for n, x in enumerate(logits)}
        torch.testing.assert_close(log_mean(named), averaged)


def test_the_logarithm_of_a_zero_mean_is_finite() -> None:
    probabilities = {"a": torch.tensor([[1.0, 0.0]]), "b": torch.tensor([[1.0, 0.0]])}
    assert torch.isfinite(log_mean(probabilities)).all()
    assert torch.isfinite(average_predictions([torch.tensor([[200.0, 0.0]])] * 2)).all()
