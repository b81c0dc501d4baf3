"""Self-training, full supervision and LaFTer on toy images."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from coft.method.coft_settings import CoFTSettings, Phase1
from coft.rivals import coft_labels, full_tuning
from tests.coft.naive import without_prior, zero_shot_logits
from tests.coft.rivals.making import make_tuning
from tests.coft.toys import (
    CLASSES,
    COUNT,
    ToyImages,
    assert_resumes,
    make_coft,
    train,
    weights,
    whole_batch,
)

KINDS = pytest.mark.parametrize("kind", ["SelfTraining", "Supervised", "LaFTer"])
FULL = pytest.mark.parametrize("kind", ["SelfTraining", "Supervised"])


def labels_of(method: Any) -> dict[str, list[int]]:
    return {name: labels.label.tolist() for name, labels in method.labels.items()}


@FULL
def test_every_model_starts_as_the_zero_shot_classifier(kind: str) -> None:
    method = make_tuning(kind)
    predicted = method.engine.predict(method.engine.images.pixels).exp()
    torch.testing.assert_close(predicted, zero_shot_logits(method).softmax(dim=1))
    assert list(method.models) == ["model_1", "model_2"] and method.ensemble_size == 2


@FULL
def test_all_weights_train_and_models_differ(kind: str) -> None:
    start, method = weights(make_tuning(kind)), make_tuning(kind)
    losses = train(method)
    assert set(losses[0][0]) == {"loss_1", "loss_2"} and [len(steps) for steps in losses] == [8, 8]
    end = weights(method)
    parts = [f"model.{key}" for key, _ in method.students["model_1"].model.named_parameters()]
    assert len(parts) == 5  # four of the encoder, and the head
    for part in parts:
        first, second = (end[f"{name}.{part}"] for name in method.models)
        assert not torch.equal(first, start[f"model_1.{part}"]) and not torch.equal(first, second)


@FULL
def test_the_loss_equals_naive_cross_entropy_adjusted_by_label_frequencies(kind: str) -> None:
    method = make_tuning(kind, ToyImages(10))
    batch = next(iter(method.engine.begin_epoch(0)))
    part, labels = whole_batch(method, "model_1", batch), method.labels["model_1"].label.tolist()
    with torch.no_grad():
        logits = method.students["model_1"].model(part.views)[0].double()
    counts = [labels.count(c) + 1 for c in range(CLASSES)]
    expected = 0.0
    for row, i in zip(logits, batch["model_1"].index.tolist(), strict=True):
        adjusted = [float(row[c]) + math.log(counts[c] / sum(counts)) for c in range(CLASSES)]
        expected += math.log(sum(map(math.exp, adjusted))) - adjusted[labels[i]]
    assert method.engine.step(batch)["loss_1"] == pytest.approx(expected / len(logits), abs=1e-4)


# -------------------------------------------------------------------- labels


@pytest.mark.parametrize("tau", [0.0, 0.5])
def test_pseudo_labels_equal_a_naive_argmax_of_the_teacher_with_corrected_prior(tau: float) -> None:
    method = make_tuning("SelfTraining", refresh=1, prior_tau=tau)
    expected: list[dict[str, list[int]]] = []
    label = method.label

    def record() -> Any:
        rows = {}
        for name, student in method.students.items():
            with torch.no_grad():
                logits = student.teacher(method.engine.images.pixels)[0].double()
            prior = [sum(float(p) for p in logits.softmax(dim=1)[:, c]) / COUNT for c in range(CLASSES)]
            scores = [[float(x) - tau * math.log(p) for x, p in zip(row, prior, strict=True)] for row in logits]
            rows[name] = [row.index(max(row)) for row in scores]
        expected.append(rows)
        return label()

    method.label = record
    train(method)
    assert len(expected) == 2
    reported = [labels for _, labels, _ in method.observer.labels]
    assert [{name: each.label.tolist() for name, each in labels.items()} for labels in reported] == expected
    assert all(bool((each.weight == 1).all()) for labels in reported for each in labels.values())
    if not tau:
        assert expected[0]["model_1"] == zero_shot_logits(method).argmax(dim=1).tolist()


def test_self_training_with_labels_of_coft() -> None:
    coft = make_coft({"label_views": 2})
    coft.engine.begin()
    first = coft.observer.chosen[0][1].tolist()
    method: Any = make_tuning("SelfTraining", refresh=1, labels="coft")
    train(method, 1)
    assert labels_of(method) == dict.fromkeys(method.models, first)
    assert first != without_prior(zero_shot_logits(method).double()).argmax(dim=1).tolist()
    images = method.engine.images
    views = torch.stack([images.views(i, 2, (1, "labels", 0)) for i in range(COUNT)])
    expected = {}
    for name, student in method.students.items():
        with torch.no_grad():
            logits = sum(student.teacher(views[:, n])[0].double() for n in range(2)) / 2
        expected[name] = without_prior(logits).argmax(dim=1).tolist()
    method.engine.begin_epoch(1)
    assert labels_of(method) == expected
    assert [set(labels) for _, labels, _ in method.observer.labels] == [set(method.models)] * 2
    assert {request[:2] for request in images.requests} == {(2, (1, "labels", 0))}


@pytest.mark.parametrize("min_steps", [1, 30, 100])
def test_the_steps_of_coft_s_phase_one_are_computed_correctly(min_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    phase1 = Phase1(min_steps=min_steps)
    method: Any = make_coft({"phase1": phase1, "seeds_per_class": 16})
    monkeypatch.setattr(coft_labels, "COFT_DEFAULTS", CoFTSettings(phase1=phase1))
    assert coft_labels.coft_phase1_steps(method.engine.images, CLASSES) == method.tuning(1).steps >= min_steps


@pytest.mark.parametrize("kind", ["SelfTraining", "MUST", "DPA"])
@pytest.mark.parametrize(("steps", "more"), [(1, 1), (8, 1), (9, 2)])
def test_equal_steps_adds_epochs_for_the_steps_of_phase_one(
    kind: str, steps: int, more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full_tuning, "coft_phase1_steps", lambda *args: steps)
    method: Any = make_tuning(kind, epochs=3, equal_steps=True)
    assert method.steps(1) == 8 and method.epochs == 3 + more
    assert method.tuning(1).steps == 8 * method.epochs


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("SelfTraining", {"epochs": 5}, [0, 2, 4]),
        ("SelfTraining", {"epochs": 5, "refresh": 0}, [0]),
        ("LaFTer", {"epochs": 6, "text_steps": 5}, [0]),
        ("LaFTer", {"epochs": 6, "text_steps": 5, "refresh": 5}, [0, 5]),
        ("Supervised", {"epochs": 4}, [0]),
    ],
)
def test_labels_are_renewed_every_refresh_epochs(kind: str, settings: dict[str, Any], expected: list[int]) -> None:
    method, epochs = make_tuning(kind, **settings), []
    label = method.label
    method.label = lambda: epochs.append(method.epoch) or label()
    for epoch in range(method.epochs):
        method.engine.begin_epoch(epoch)
    assert epochs == expected


def test_supervised_learns_its_labels() -> None:
    images = ToyImages()
    truth = images.truth.roll(1)
    method = make_tuning("Supervised", images, truth, epochs=15)
    train(method)
    for labels in method.labels.values():
        assert torch.equal(labels.index, torch.arange(COUNT)) and torch.equal(labels.label, truth)
        assert bool(labels.keep.all())
    assert (method.engine.predict(images.pixels).argmax(dim=1) == truth).all()


# -------------------------------------------------------------------- prediction and resume


@FULL
def test_final_weights_are_averaged_with_zero_shot_clip(kind: str) -> None:
    method = make_tuning(kind, ensemble=3, wise=0.25)
    train(method)
    clip, pixels = method.engine.clip, method.engine.images.pixels
    assert method.ensemble_size == 3
    probabilities = []
    for student in method.students.values():
        encoder = copy.deepcopy(clip.visual)
        trained = dict(student.teacher.encoder.named_parameters())
        for name, value in encoder.named_parameters():
            value.copy_(0.75 * value + 0.25 * trained[name])
        mixed = 0.75 * clip.zero_shot_text() + 0.25 * F.normalize(student.teacher.positive, dim=-1)
        logits = clip.scale * F.normalize(encoder(pixels), dim=-1) @ F.normalize(mixed, dim=-1).t()
        probabilities.append(logits.softmax(dim=1))
    torch.testing.assert_close(method.engine.predict(pixels).exp(), sum(probabilities) / 3)


@KINDS
def test_a_resumed_run_ends_in_the_same_bits(kind: str) -> None:
    settings = {"epochs": 3} | ({"refresh": 2} if kind != "Supervised" else {})
    assert_resumes(lambda: make_tuning(kind, **settings))
