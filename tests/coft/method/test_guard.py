"""The guard: nothing is trained where zero-shot CLIP hardly separates the classes."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from coft.core.table import Table
from coft.method.guard import measure_knowledge
from tests.coft.naive import zero_shot_logits
from tests.coft.toys import PEERS, ToyBackbone, ToyImages, checkpoint_of, load, make_coft, make_plus, train


def naive(logits: list[list[float]]) -> tuple[float, float]:
    """Expected skill above the commonest class and normalised mutual information, number by number."""
    rows = []
    for row in logits:
        powers = [math.exp(x - max(row)) for x in row]
        rows.append([x / sum(powers) for x in powers])
    count, classes = len(rows), len(rows[0])
    mean = [sum(row[c] for row in rows) / count for c in range(classes)]
    chance = max(mean)
    confidence = sum(max(row) for row in rows) / count
    information = sum(p * math.log(p / m) for row in rows for p, m in zip(row, mean, strict=True) if p) / count
    return (confidence - chance) / max(1 - chance, 1e-12), information / math.log(classes)


@given(st.integers(2, 6), st.integers(1, 12), st.floats(0.1, 20), st.integers(0, 99))
def test_knowledge_equals_a_naive_loop(classes: int, count: int, scale: float, seed: int) -> None:
    logits = scale * torch.randn(count, classes, generator=torch.Generator().manual_seed(seed))
    measured = measure_knowledge(Table.of(logits))
    expected = naive(logits.tolist())
    assert measured.information == pytest.approx(expected[1], abs=1e-6)
    if count > 1:
        assert measured.skill == pytest.approx(expected[0], abs=1e-5)


@pytest.mark.parametrize(
    ("rows", "insufficient"),
    [
        ([[0.0, 0.0, 0.0]] * 9, True),  # uniform
        ([[9.0, 0.0, 0.0]] * 9, True),  # one class for all images
        ([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]], False),
        ([[1.0, 0.0], [0.0, 1.0]], False),  # two classes: little information, but 73 % correct
        ([[4.0 if c // 4 == i else 0.0 for c in range(40)] for i in range(10)], False),
    ],
)
def test_skill_and_information_must_both_be_low(rows: list[list[float]], insufficient: bool) -> None:
    assert measure_knowledge(Table.of(torch.tensor(rows))).is_insufficient == insufficient


def weak_backbone(images: ToyImages) -> ToyBackbone:
    """A backbone with nearly equal logits."""
    backbone = ToyBackbone(images)
    backbone.scale = 0.05
    return backbone


@pytest.mark.parametrize("make", [make_coft, make_plus])
def test_the_guard_keeps_zero_shot_clip_and_trains_nothing(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    images = ToyImages()
    backbone = weak_backbone(images)
    method = make(images=images, backbone=backbone, guard=True)
    with caplog.at_level(logging.WARNING):
        losses = train(method)
    assert not any(losses) and len(losses) == method.epochs
    assert caplog.text.count("TRAIN.GUARD False") == 1
    plain = zero_shot_logits(method)
    torch.testing.assert_close(method.engine.predict(images.pixels), plain)
    predictions = method.engine.predict_each(images.pixels)
    assert list(predictions) == list(PEERS) and torch.equal(*predictions.values())
    final = method.predictor()
    scores = final.scores([F.normalize(final.encoders[0](images.pixels), dim=-1)])
    torch.testing.assert_close(final.log_probabilities(scores), plain)
    assert final.p_clean(scores) is None
    assert len(method.observer.labels) == 1  # the labels are still reported
    assert all(count == len(images) for _, _, count in images.requests)  # no filter of seeds and no fit

    loaded = make(images=images, backbone=backbone, guard=True)
    load(loaded, checkpoint_of(method))
    assert not loaded.trains and torch.equal(loaded.engine.predict(images.pixels), method.engine.predict(images.pixels))


def test_zero_shot_clip_uses_the_descriptions_of_the_seeds() -> None:
    images = ToyImages()
    backbone = weak_backbone(images)
    text = F.normalize(backbone.visual(images.prototypes), dim=-1)
    shares: list[float] = []

    def describe(share: float) -> torch.Tensor:
        shares.append(share)
        return text

    method = make_plus(images=images, backbone=backbone, guard=True, describe=describe)
    train(method)
    expected = backbone.scale * F.normalize(backbone.visual(images.pixels), dim=-1) @ text.t()
    first, before = method.engine.predict(images.pixels), len(shares)
    torch.testing.assert_close(first, expected)
    assert torch.equal(first, method.engine.predict(images.pixels)) and not method.trains
    assert len(shares) == before  # text features are cached
    backbone.scale = 100.0
    other = make_plus(images=images, backbone=backbone, guard=True, describe=describe)
    other.engine.begin()
    assert other.trains


@pytest.mark.parametrize(("separable", "guard"), [(True, True), (False, False)])
def test_a_guard_that_does_not_fire_changes_no_bit(separable: bool, guard: bool) -> None:
    images = ToyImages()
    backbone = ToyBackbone(images) if separable else weak_backbone(images)
    guarded = make_coft(images=images, backbone=backbone, guard=guard)
    plain = make_coft(images=images, backbone=backbone)
    assert train(guarded) == train(plain) and guarded.trains
    assert torch.equal(guarded.engine.predict(images.pixels), plain.engine.predict(images.pixels))
