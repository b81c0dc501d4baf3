"""The guard: nothing is trained where CLIP hardly knows the classes."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from coft.core import table
from coft.core.table import Table
from coft.engine.runtime import Runtime
from coft.method.guard import guard_fires, measure_knowledge
from tests.coft.naive import zero_shot_logits
from tests.coft.toys import PEERS, ToyBackbone, ToyImages, load, make_coft, make_plus, saved, train


def naive(logits: list[list[float]]) -> tuple[float, float]:
    """Expected skill above the commonest class and normalised mutual information, number by number."""
    rows = []
    for row in logits:
        powers = [math.exp(x - max(row)) for x in row]
        rows.append([x / sum(powers) for x in powers])
    count, classes = len(rows), len(rows[0])
    mean = [sum(row[c] for row in rows) / count for c in range(classes)]
    chance = max(mean)
    surest = sum(max(row) for row in rows) / count
    shared = sum(p * math.log(p / m) for row in rows for p, m in zip(row, mean, strict=True) if p) / count
    return (surest - chance) / max(1 - chance, 1e-12), shared / math.log(classes)


@given(st.integers(2, 6), st.integers(1, 12), st.floats(0.1, 20), st.integers(0, 99))
def test_knowledge_is_that_of_a_naive_loop(classes: int, count: int, scale: float, seed: int) -> None:
    logits = scale * torch.randn(count, classes, generator=torch.Generator().manual_seed(seed))
    measured = measure_knowledge(Table.of(logits))
    expected = naive(logits.tolist())
    assert measured.information == pytest.approx(expected[1], abs=1e-6)
    if count > 1:
        assert measured.skill == pytest.approx(expected[0], abs=1e-5)


def test_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = Table.of(torch.randn(50, 4, generator=torch.Generator().manual_seed(0)))
    whole = measure_knowledge(logits)
    monkeypatch.setattr(table, "ROWS", 7)
    parts = measure_knowledge(logits)
    assert (parts.skill, parts.information) == pytest.approx((whole.skill, whole.information), abs=1e-12)


@pytest.mark.parametrize(
    ("rows", "hardly"),
    [
        ([[0.0, 0.0, 0.0]] * 9, True),  # nothing is known
        ([[9.0, 0.0, 0.0]] * 9, True),  # all images look the same
        ([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]], False),
        ([[1.0, 0.0], [0.0, 1.0]], False),  # two classes: little information, but right in 73 %
        ([[4.0 if c // 4 == i else 0.0 for c in range(40)] for i in range(10)], False),
    ],
)
def test_both_must_be_low(rows: list[list[float]], hardly: bool) -> None:
    assert measure_knowledge(Table.of(torch.tensor(rows))).is_insufficient == hardly


def test_a_single_class_is_known() -> None:
    assert not guard_fires(Table.of(torch.zeros(9, 1)), 1)


def unknown(images: ToyImages) -> ToyBackbone:
    """A CLIP to which all classes are nearly alike."""
    backbone = ToyBackbone(images)
    backbone.scale = 0.05
    return backbone


@pytest.mark.parametrize("make", [make_coft, make_plus])
def test_nothing_is_trained_and_zero_shot_clip_is_kept_where_it_hardly_knows_the_classes(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    images = ToyImages()
    backbone = unknown(images)
    method = make(images=images, backbone=backbone, guard=True)
    with caplog.at_level(logging.WARNING):
        losses = train(method)
    assert not any(losses) and len(losses) == method.epochs
    assert caplog.text.count("TRAIN.GUARD False") == 1
    plain = zero_shot_logits(method)
    torch.testing.assert_close(method.engine.predict(images.pixels), plain)
    each = method.engine.predict_each(images.pixels)
    assert list(each) == list(PEERS) and torch.equal(*each.values())
    final = method.predictor()
    scores = final.scores([F.normalize(final.encoders[0](images.pixels), dim=-1)])
    torch.testing.assert_close(final.log_probabilities(scores), plain)
    assert final.p_clean(scores) is None
    assert len(method.observer.labels) == 1  # people see what the labels would have been
    assert all(count == len(images) for _, _, count in images.asked)  # nothing weighs seeds, or fits vectors to them

    again = make(images=images, backbone=backbone, guard=True)
    load(again, saved(method))
    assert not again.trains and torch.equal(again.engine.predict(images.pixels), method.engine.predict(images.pixels))


def test_zero_shot_clip_has_the_descriptions_that_the_seeds_have() -> None:
    images = ToyImages()
    backbone = unknown(images)
    text = F.normalize(backbone.visual(images.prototypes), dim=-1)
    described: list[float] = []

    def describe(share: float) -> torch.Tensor:
        described.append(share)
        return text

    method = make_plus(images=images, backbone=backbone, guard=True, describe=describe)
    train(method)
    expected = backbone.scale * F.normalize(backbone.visual(images.pixels), dim=-1) @ text.t()
    first, before = method.engine.predict(images.pixels), len(described)
    torch.testing.assert_close(first, expected)
    assert torch.equal(first, method.engine.predict(images.pixels)) and not method.trains
    assert len(described) == before  # texts are not encoded for each batch
    backbone.scale = 100.0
    other = make_plus(images=images, backbone=backbone, guard=True, describe=describe)
    other.engine.begin()
    assert other.trains


def test_text_of_zero_shot_clip_is_encoded_in_full_precision_whatever_the_run_s() -> None:
    images = ToyImages()
    backbone = unknown(images)
    reduced: list[bool] = []

    def describe(share: float) -> torch.Tensor:
        reduced.append(torch.is_autocast_enabled("cpu"))
        return backbone.zero_shot_text()

    runtime = Runtime(1, dtype=torch.bfloat16)
    method = make_plus(images=images, backbone=backbone, runtime=runtime, guard=True, describe=describe)
    train(method)
    method.engine.predict(images.pixels)
    assert not method.trains and reduced and not any(reduced)


@pytest.mark.parametrize(("known", "guard"), [(True, True), (False, False)])
def test_else_the_guard_changes_no_bit(known: bool, guard: bool) -> None:
    images = ToyImages()
    backbone = ToyBackbone(images) if known else unknown(images)
    guarded = make_coft(images=images, backbone=backbone, guard=guard)
    plain = make_coft(images=images, backbone=backbone)
    assert train(guarded) == train(plain) and guarded.trains
    assert torch.equal(guarded.engine.predict(images.pixels), plain.engine.predict(images.pixels))
