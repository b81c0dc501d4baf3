"""MUST on toy images: labels of the EMA teacher at each step, and the fairness term."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.coft.rivals.making import make_tuning
from tests.coft.toys import CLASSES, ToyImages, assert_resumes, train, whole_batch


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("fairness", [0.0, 2.0])
def test_the_loss_equals_a_naive_loop(threshold: float, fairness: float) -> None:
    method: Any = make_tuning("MUST", ToyImages(10), threshold=threshold, fairness=fairness)
    batch = next(iter(method.engine.begin_epoch(0)))
    student = method.students["model_1"]
    part = whole_batch(method, "model_1", batch)
    with torch.no_grad():
        weak = student.teacher(part.views[:, 1])[0].double().softmax(dim=1).tolist()
        strong = student.model(part.views[:, 0])[0].double().softmax(dim=1).tolist()
    losses = [-math.log(q[p.index(max(p))]) for p, q in zip(weak, strong, strict=True) if max(p) >= threshold]
    unfair = -sum(math.log(sum(q[c] for q in strong) / len(strong)) for c in range(CLASSES)) / CLASSES
    reported = method.engine.step(batch)
    assert reported["loss_1"] == pytest.approx(sum(losses) / max(1, len(losses)), abs=1e-4)
    assert reported.get("unfair_1", 0.0) == pytest.approx(unfair if fairness else 0.0, abs=1e-4)


def test_all_images_train_and_a_resumed_run_ends_in_the_same_bits() -> None:
    method: Any = make_tuning("MUST")
    train(method)
    assert all(len(labels.nonzero().index) == len(method.engine.images) for labels in method.labels.values())
    assert len(method.observer.labels) == 1
    assert_resumes(lambda: make_tuning("MUST"))
