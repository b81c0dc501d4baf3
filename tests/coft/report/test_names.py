"""Signals of wrong class names against naive loops, and on classes with changed names."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coft.report.names import (
    BELIEVED,
    KINDS,
    MIN_IMAGES,
    NEIGHBOURS,
    believed_of,
    few,
    measure,
    name_fit,
    rare,
    suspects,
)

CLASSES, SIZE, WIDTH = 5, 30, 24


@pytest.fixture(scope="module")
def groups() -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Centred features in separate groups, text features near them, and the group of each image."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, WIDTH))
    truth = np.repeat(np.arange(CLASSES), SIZE)
    features = centres[truth] + 0.3 * rng.normal(size=(len(truth), WIDTH))
    features -= features.mean(axis=0)
    text = centres + 0.3 * rng.normal(size=centres.shape) + 4
    return torch.nn.functional.normalize(torch.from_numpy(features).float(), dim=1), text, truth


def test_correct_names_are_not_suspicious(groups: tuple[torch.Tensor, np.ndarray, np.ndarray]) -> None:
    features, text, truth = groups
    signals = measure(features, text, truth, np.ones(len(truth)))
    assert suspects(signals) == [] and all(
        class_signals.alike > 0.9 and class_signals.fit > 0 for class_signals in signals
    )


def test_swapped_names_are_suspicious(groups: tuple[torch.Tensor, np.ndarray, np.ndarray]) -> None:
    features, text, truth = groups
    final = np.array([1, 0, 2, 3, 4])[truth]
    suspicious = {suspect.label: suspect for suspect in suspects(measure(features, text, final, np.ones(len(truth))))}
    assert suspicious.keys() == {0, 1}
    for label, other in ((0, 1), (1, 0)):
        assert "another name fits better" in suspicious[label].reasons
        assert suspicious[label].signals.rival == other


def test_few_images_give_no_signal(groups: tuple[torch.Tensor, np.ndarray, np.ndarray]) -> None:
    features, text, truth = groups
    index = np.concatenate([np.flatnonzero(truth == label)[: MIN_IMAGES - 1] for label in range(CLASSES)])
    final = (truth[index] + 1) % CLASSES
    signals = measure(features[torch.from_numpy(index)], text, final, np.ones(len(final)))
    assert suspects(signals) == [] and all(np.isnan(class_signals.fit) for class_signals in signals)


def test_a_class_that_the_sample_misses_has_images(groups: tuple[torch.Tensor, np.ndarray, np.ndarray]) -> None:
    features, text, truth = groups
    sample = np.flatnonzero(truth > 1)
    counts = [0, 9, *[1000] * (CLASSES - 2)]
    signals = measure(features[torch.from_numpy(sample)], text, truth[sample], np.ones(len(sample)), counts)
    assert [(suspect.label, suspect.reasons) for suspect in suspects(signals)] == [(0, ("no image is of it",))]
    assert few(signals) == [1]


def test_signals_equal_a_naive_loop(groups: tuple[torch.Tensor, np.ndarray, np.ndarray]) -> None:
    features, text, truth = groups
    rng = np.random.default_rng(2)
    final = np.where(rng.random(len(truth)) < 0.7, truth, rng.integers(CLASSES, size=len(truth)))
    believed = rng.random(len(truth))
    rows, signals = features.numpy(), measure(features, text, final, believed)
    names = text - text.mean(axis=0)
    means = np.stack([rows[final == label].mean(axis=0) for label in range(CLASSES)])
    means -= means.mean(axis=0)
    for label in range(CLASSES):
        members, same, products = np.flatnonzero(final == label), [], []
        mean = np.mean([believed[i] for i in members])
        for i in members:
            others = sorted((j for j in range(len(rows)) if j != i), key=lambda j: -float(rows[i] @ rows[j]))
            same += [final[j] == label for j in others[:NEIGHBOURS]]
            products += [(believed[i] - mean) * (believed[j] - mean) for j in others[:NEIGHBOURS] if final[j] == label]
        morans_i = np.mean(products) / np.mean([(believed[i] - mean) ** 2 for i in members])
        cosine = [
            means[label] @ names[c] / np.linalg.norm(means[label]) / np.linalg.norm(names[c]) for c in range(CLASSES)
        ]
        rival = max((c for c in range(CLASSES) if c != label), key=lambda c: cosine[c])
        measured = signals[label]
        assert measured.alike == pytest.approx(np.mean(same)) and measured.images == len(members)
        assert measured.fit == pytest.approx(cosine[label] - cosine[rival], abs=1e-5) and measured.rival == rival
        assert measured.kinds == pytest.approx(len(members) * CLASSES / len(rows) * (1 + morans_i))


def test_a_name_of_low_probability_is_suspicious(groups: tuple[torch.Tensor, np.ndarray, np.ndarray]) -> None:
    features, text, truth = groups
    believed = np.where(truth == 2, BELIEVED - 0.01, BELIEVED + 0.01)
    (suspect,) = suspects(measure(features, text, truth, believed))
    assert suspect.label == 2 and suspect.reasons == ("CLIP doubts the name",)
    assert suspect.signals.believed == pytest.approx(BELIEVED - 0.01)


def test_two_groups_under_one_name_are_suspicious(groups: tuple[torch.Tensor, np.ndarray, np.ndarray]) -> None:
    features, text, truth = groups
    believed = np.where(truth == 4, 0.4, 0.9)  # images of class 4 have the name of class 3
    (suspect,) = suspects(measure(features, text[:4], truth.clip(max=3), believed))
    assert suspect.label == 3 and suspect.reasons == ("may be two kinds",) and suspect.signals.kinds > 3
    evenly = measure(features, text[:4], truth.clip(max=3), np.where(np.arange(len(truth)) % 2, 0.4, 0.9))
    assert suspects(evenly) == [] and evenly[3].kinds < KINDS


def test_believed_is_the_softmax_probability() -> None:
    rng = np.random.default_rng(0)
    features, text = rng.normal(size=(6, 4)), rng.normal(size=(3, 4))
    labels = np.array([0, 1, 2, 2, 1, -1])
    measured = believed_of(torch.from_numpy(features), text, 7.0, labels)
    for row, label, value in zip(features[:-1], labels, measured, strict=False):
        weights = [np.exp(7.0 * row @ vector) for vector in text]
        assert value == pytest.approx(weights[label] / sum(weights), rel=1e-4)
    assert np.isnan(measured[-1])


def test_degenerate_groups_are_measured() -> None:
    fit, rival = name_fit(np.ones((3, 2)), np.ones((1, 2)), np.zeros(3, dtype=int))
    assert np.isnan(fit).all() and (rival == -1).all()
    assert rare(np.array([100, 100, 1, 0])) == [2, 3]
