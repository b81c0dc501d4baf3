"""MUST on toys: labels of the moving average at each step, and the mean prediction that keeps classes in balance."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from coft.rivals.must import MOMENTUM
from tests.coft.rivals.making import make_tuning
from tests.coft.toys import CLASSES, ToyImages, assert_resumes, part_of, train


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("fairness", [0.0, 2.0])
def test_the_loss_is_that_of_a_naive_loop(threshold: float, fairness: float) -> None:
    method: Any = make_tuning("MUST", ToyImages(10), threshold=threshold, fairness=fairness)
    batch = next(iter(method.engine.begin_epoch(0)))
    student = method.students["model_1"]
    part, mean = part_of(method, "model_1", batch), student.mean_prediction.tolist()
    with torch.no_grad():
        weak = student.teacher(part.views[:, 1])[0].double().softmax(dim=1).tolist()
        strong = student.model(part.views[:, 0])[0].double().softmax(dim=1).tolist()
    loss, unfair = 0.0, 0.0
    for p, q in zip(weak, strong, strict=True):
        if max(p) >= threshold:
            loss -= math.log(q[p.index(max(p))])
        unfair -= sum(x / m for x, m in zip(q, mean, strict=True)) / CLASSES
    reported = method.engine.step(batch)
    assert reported["loss_1"] == pytest.approx(loss / len(weak), abs=1e-4)
    assert ("unfair_1" in reported) == bool(fairness)
    if fairness:
        assert reported["unfair_1"] == pytest.approx(unfair / len(weak), abs=1e-4)
    averaged = [MOMENTUM * m + (1 - MOMENTUM) * sum(q[c] for q in strong) / len(strong) for c, m in enumerate(mean)]
    assert student.mean_prediction.tolist() == pytest.approx(averaged, abs=1e-5)


def test_the_fairness_term_has_the_gradient_of_the_log_of_the_mean() -> None:
    logits = torch.randn(6, CLASSES, dtype=torch.float64, requires_grad=True)
    predicted = logits.softmax(dim=1)
    mean = predicted.mean(dim=0)
    linear = -(predicted / mean.detach()).mean(dim=1).mean()
    (expected,) = torch.autograd.grad(-mean.log().mean(), logits, retain_graph=True)
    (gradient,) = torch.autograd.grad(linear, logits)
    torch.testing.assert_close(gradient, expected)


def test_images_are_drawn_from_all_and_a_run_goes_on() -> None:
    method: Any = make_tuning("MUST")
    train(method)
    assert all(len(labels.nonzero().index) == len(method.engine.images) for labels in method.labels.values())
    assert len(method.observer.labels) == 1
    assert_resumes(lambda: make_tuning("MUST"))
