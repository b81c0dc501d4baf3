"""DPA on toy images: prototypes, and the loss against a naive loop."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.coft.naive import softmax
from tests.coft.rivals.making import make_tuning
from tests.coft.toys import CLASSES, ToyImages, assert_resumes, train, whole_batch


@pytest.mark.parametrize("image_share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("fairness", "align"), [(0.0, 0.0), (2.0, 0.5)])
def test_the_loss_equals_a_naive_loop(image_share: float, fairness: float, align: float) -> None:
    method: Any = make_tuning("DPA", ToyImages(10), image_share=image_share, fairness=fairness, align=align)
    batch = next(iter(method.engine.begin_epoch(0)))
    student, scale = method.students["model_1"], method.engine.clip.scale
    student.recent.copy_(torch.rand(student.recent.shape))
    before, part = student.recent.tolist(), whole_batch(method, "model_1", batch)
    mean = [sum(row[c] for row in before) / len(before) for c in range(CLASSES)]
    prototypes = student.prototypes.double()
    with torch.no_grad():
        weak = student.model.features(part.views[:, 1])
        by_text = student.model.classify(weak)[0].double().softmax(dim=1).tolist()
        by_image = [softmax(row) for row in (scale * weak.double() @ prototypes.t()).tolist()]
        strong = student.model(part.views[:, 0])[0].double().softmax(dim=1).tolist()
        texts = F.normalize(student.model.positive.double(), dim=-1)
    loss = 0.0
    for p, r, q in zip(by_text, by_image, strong, strict=True):
        balanced = [x / m for x, m in zip(p, mean, strict=True)]
        both = [image_share * b + (1 - image_share) * a / sum(balanced) for a, b in zip(balanced, r, strict=True)]
        y = both.index(max(both))
        loss -= p[y] / max(p) * r[y] / max(r) * math.log(q[y])
    unfair = -sum(math.log(sum(q[c] for q in strong) / len(strong)) for c in range(CLASSES)) / CLASSES
    rows = (scale * prototypes @ texts.t()).tolist()
    alignment = -sum(math.log(softmax(row)[c]) for c, row in enumerate(rows)) / CLASSES
    reported = method.engine.step(batch)
    assert reported["loss_1"] == pytest.approx(loss / len(weak), abs=1e-4)
    assert reported.get("unfair_1", 0.0) == pytest.approx(unfair if fairness else 0.0, abs=1e-4)
    assert reported.get("apart_1", 0.0) == pytest.approx(alignment if align else 0.0, abs=1e-4)
    newest = [sum(p[c] for p in by_text) / len(by_text) for c in range(CLASSES)]
    torch.testing.assert_close(student.recent, torch.tensor([*before[1:], newest]), rtol=1e-4, atol=1e-5)


def test_the_balance_starts_with_the_mean_prediction_of_all_images() -> None:
    method: Any = make_tuning("DPA")
    method.engine.begin_epoch(0)
    student = method.students["model_1"]
    with torch.no_grad():
        mean = student.model(method.engine.images.pixels)[0].softmax(dim=1).mean(dim=0)
    torch.testing.assert_close(student.recent, mean.expand_as(student.recent), rtol=1e-4, atol=1e-5)


def test_a_class_that_is_never_predicted_does_not_spoil_the_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    method: Any = make_tuning("DPA", image_share=0.0)
    batch = whole_batch(method, "model_1", next(iter(method.engine.begin_epoch(0))))
    student: Any = method.students["model_1"]
    certain = F.one_hot(torch.tensor([1]), CLASSES)
    student.recent.copy_(certain.expand_as(student.recent))
    monkeypatch.setattr(student.model, "classify", lambda rows: (1e4 * certain.expand(len(rows), CLASSES), None))
    assert set(method.label_batch(student, batch.views[:, 1])[0].tolist()) == {1}


def test_image_prototypes_are_class_means_or_the_text_of_an_empty_class() -> None:
    method: Any = make_tuning("DPA")
    train(method, 1)
    before = {name: student.prototypes.clone() for name, student in method.students.items()}
    method.engine.begin_epoch(1)
    pixels = method.engine.images.pixels
    for name, student in method.students.items():
        with torch.no_grad():
            features = student.model.features(pixels)
            text = student.model.classify(features)[0].softmax(dim=1)
        image = (method.engine.clip.scale * features @ before[name].t()).softmax(dim=1)
        label = (0.5 * image + 0.5 * text).argmax(dim=1)
        for c in range(CLASSES):
            members = features[label == c]
            expected = members.mean(dim=0) if len(members) else student.model.positive[c].detach()
            torch.testing.assert_close(student.prototypes[c], F.normalize(expected, dim=-1), atol=1e-5, rtol=1e-4)


def test_a_resumed_run_ends_in_the_same_bits() -> None:
    assert_resumes(lambda: make_tuning("DPA"))
