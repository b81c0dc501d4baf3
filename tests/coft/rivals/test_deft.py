"""DeFT on toy images: zero-shot labels for all images, filtered by each model itself."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from coft.core.table import Table
from coft.engine.runtime import Runtime
from coft.labelling.pseudo_labels import PseudoLabels
from coft.rivals import deft
from coft.rivals.deft import (
    DeFT,
    DeFTSettings,
    Phase1,
    Phase2,
    draw_complement,
    drawn_dual_loss,
    keep_best,
    separation,
)
from tests.coft.naive import sigmoid, zero_shot_logits
from tests.coft.toys import (
    CLASSES,
    COUNT,
    PEERS,
    OtherSecondPeer,
    Recorder,
    ToyBackbone,
    ToyImages,
    assert_resumes,
    begin_at,
    make_method,
    train,
    weights,
    whole_batch,
)


@pytest.fixture(autouse=True)
def _short_warmup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deft, "WARMUP_STEPS", 1)
    monkeypatch.setattr(deft, "MIN_AUC", 0.0)


def make_deft(kind: type[ToyBackbone] = ToyBackbone, runtime: Runtime | None = None, **settings: Any) -> Any:
    images = ToyImages()
    short: dict[str, Any] = {"phase1": Phase1(2, 8), "phase2": Phase2(2, lr=1e-3), "n_ctx": 4}
    parts: dict[str, Any] = {"images": images, "backbone": kind(images), "runtime": runtime}
    return make_method(DeFT, DeFTSettings(**(short | settings)), Recorder(), **parts)


@torch.no_grad()
def scores_of(method: Any, name: str) -> tuple[Tensor, Tensor]:
    """Logits and clean log-odds of all images by one model in Phase I."""
    return method.peers[name].prompted()(method.engine.images.pixels)


def naive_clean(odds: Tensor, label: list[int], at_least: int) -> list[bool]:
    kept = [float(odds[i, y]) > 0 for i, y in enumerate(label)]
    for c in range(CLASSES):
        members = [i for i, y in enumerate(label) if y == c]
        for i in sorted(members, key=lambda i: -float(odds[i, c]))[:at_least]:
            kept[i] = True
    return kept


def test_all_images_have_zero_shot_labels_in_both_models() -> None:
    method = make_deft()
    method.engine.begin()
    for name in PEERS:
        labels = method.labels[name]
        assert labels.index.tolist() == list(range(COUNT)) and torch.equal(
            labels.label, zero_shot_logits(method).argmax(dim=1)
        )
        assert bool((labels.weight == 1).all())
    assert method.min_kept == 3  # a quarter of ten images per class, rounded up


@pytest.mark.parametrize("warm", [True, False])
def test_each_model_filters_its_own_labels(warm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not warm:
        monkeypatch.setattr(deft, "MIN_AUC", 1.0)
    method = make_deft()
    train(method, 1)
    for peer in method.peers.values():
        residual, source = peer.negative_residual, torch.Generator().manual_seed(1)
        residual.data += 0.3 * torch.randn(residual.shape, generator=source)
    method.engine.begin_epoch(1)
    label = zero_shot_logits(method).argmax(dim=1).tolist()
    for name in PEERS:
        logits, odds = scores_of(method, name)
        kept = naive_clean(odds, label, 3) if warm else [True] * COUNT
        assert method.labels[name].label.tolist() == label
        assert method.labels[name].weight.tolist() == [float(k) for k in kept]
        predicted = logits.argmax(dim=1).tolist()
        expected = [y if k else z for y, k, z in zip(label, kept, predicted, strict=True)]
        assert method.dual[name].tolist() == expected
        assert warm != all(kept)


def test_phase_two_keeps_the_labels_that_phase_one_finds_clean() -> None:
    method = make_deft()
    train(method)
    ((predictions, labels, sources),) = method.observer.labels
    assert sources == {name: name for name in PEERS}
    label = zero_shot_logits(method).argmax(dim=1)
    for name in PEERS:
        kept = naive_clean(scores_of(method, name)[1], label.tolist(), 3)
        for kept_labels in (labels[name], method.labels[name]):
            assert torch.equal(kept_labels.label, label) and kept_labels.keep.tolist() == kept
        assert torch.equal(predictions[name].label, label)
        (stream,) = method.streams()[name]
        assert stream.index.tolist() == [i for i, k in enumerate(kept) if k]


def test_phase_two_starts_from_pre_trained_weights_and_tuned_prompts() -> None:
    method = make_deft()
    train(method, 2)
    method.engine.begin_epoch(2)
    for peer in method.peers.values():
        student = peer.student.model
        for key, value in method.engine.clip.visual.named_parameters():
            assert torch.equal(student.encoder.get_parameter(key), value)
            assert key.endswith("weight") or not torch.equal(peer.encoder.get_parameter(key), value)
        for head, text in zip((student.positive, student.negative), peer.text_features(), strict=True):
            torch.testing.assert_close(head, text)


# -------------------------------------------------------------------- the loss


def test_the_drawn_dual_loss_equals_a_naive_loop() -> None:
    d = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 5
    y, z = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([1, 0, 3, 2, 3, 2])
    expected = [-math.log(sigmoid(float(d[i, y[i]]))) - math.log(1 - sigmoid(float(d[i, z[i]]))) for i in range(6)]
    assert drawn_dual_loss(d, y, z).tolist() == pytest.approx(expected, abs=1e-12)


def test_complement_is_uniform_over_the_other_classes() -> None:
    z = draw_complement(torch.full((30_000,), 2), 5, torch.Generator().manual_seed(0))
    share = torch.bincount(z, minlength=5) / 30_000
    torch.testing.assert_close(share, torch.tensor([0.25, 0.25, 0.0, 0.25, 0.25]), atol=0.01, rtol=0)


def test_the_dual_loss_trains_the_negative_prompt_and_not_the_encoder() -> None:
    method = make_deft()
    batch = begin_at(method)[0]
    method.loss("peer_b", replace(whole_batch(method, "peer_b", batch), number=3))["dual"].mean.backward()
    peer = method.peers["peer_b"]
    assert not any(p.grad is not None and p.grad.any() for p in peer.encoder.parameters())
    residual = peer.negative_residual
    assert bool(peer.prompts.negative.grad.any()) and not residual.requires_grad and not residual.any()


def test_micro_batches_draw_the_complements_of_the_whole_batch() -> None:
    whole, parts = (train(make_deft(runtime=Runtime(1, micro_batch=size))) for size in (0, 3))
    for expected, actual in zip(whole, parts, strict=True):
        assert [pytest.approx(step, rel=1e-3, abs=1e-5) for step in expected] == actual


# -------------------------------------------------------------------- both models


def test_other_initial_prompts_of_one_model_do_not_change_the_other() -> None:
    ends = []
    for kind in (ToyBackbone, OtherSecondPeer):
        method = make_deft(kind)
        train(method)
        ends.append(weights(method))
    assert {key.split(".")[0] for key in ends[0] if not torch.equal(*(end[key] for end in ends))} == {"peer_b"}


def test_a_resumed_run_ends_in_the_same_bits() -> None:
    assert_resumes(make_deft)


def test_steps_phases_and_predictions() -> None:
    method = make_deft(phase1=Phase1(3, 40))
    assert (method.epochs, method.steps(1), method.steps(2)) == (5, math.ceil(40 / 3), 8)
    settings = DeFTSettings(phase1=Phase1(epochs=2, min_steps=0), phase2=Phase2(epochs=1))
    passing = make_method(DeFT, settings, images=ToyImages(COUNT + 1, batch_size=1))  # not a multiple of the classes
    assert passing.steps(1) == passing.steps(2) == COUNT + 1  # a pass over the images
    assert [method.phase(epoch) for epoch in range(5)] == [1, 1, 1, 2, 2]
    train(method)
    pixels = method.engine.images.pixels
    reported = method.engine.predict_each(pixels)
    for name, peer in method.peers.items():
        with torch.no_grad():
            logits, _ = peer.student.teacher(pixels)
        torch.testing.assert_close(reported[name], logits.softmax(dim=1))
    torch.testing.assert_close(method.engine.predict(pixels).exp(), sum(reported.values()) / 2)
    assert list(reported) == list(PEERS)


def test_separation_equals_a_naive_loop_over_pairs() -> None:
    d = torch.tensor([[3.0, 1.0, 0.2], [0.5, 0.2, 3.0]])
    y = torch.tensor([0, 1])
    at_label = [3.0, 0.2]
    others = [1.0, 0.2, 0.5, 3.0]
    wins = sum((a > b) + 0.5 * (a == b) for a in at_label for b in others)
    assert separation(Table.of(d), y) == pytest.approx(wins / 8)
    for seed in range(5):
        source = torch.Generator().manual_seed(seed)
        d = torch.randn(7, 4, generator=source).round(decimals=1)
        y = torch.randint(4, (7,), generator=source)
        pairs = [(float(d[i, y[i]]), float(d[j, c])) for i in range(7) for j in range(7) for c in range(4) if c != y[j]]
        assert separation(Table.of(d), y) == pytest.approx(sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs))


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("at_least", [0, 1, 7, 1000])
def test_keep_best_equals_a_naive_loop(at_least: int, soft: bool) -> None:
    source = torch.Generator().manual_seed(3)
    label, score = torch.randint(0, 4, (40,), generator=source), torch.rand(40, generator=source).round(decimals=1)
    weight = torch.rand(40, generator=source)
    weight = weight if soft else (weight > 0.8).float()
    index = torch.randperm(40, generator=source)
    before = weight.clone()
    result = keep_best(PseudoLabels(index, label, weight), score, at_least, 5)
    expected = weight.tolist()
    for c in range(5):
        members = sorted((i for i in range(40) if label[i] == c), key=lambda i: (-score[i].item(), i))
        for i in members[:at_least]:
            expected[i] = 1
    assert result.weight.tolist() == expected and torch.equal(weight, before)
    assert result.label is label and result.index is index
