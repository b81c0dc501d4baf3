"""DeFT on toys: every image has its zero-shot label, and each model filters by itself."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coft.core.seeding import generator
from coft.method.negative_prompt import draw_complement, dual_loss
from coft.method.protocol import Runtime
from coft.rivals import deft
from coft.rivals.deft import DeFT, DeFTSettings, Phase1, Phase2
from tests.coft.method.toys import (
    CLASSES,
    COUNT,
    PEERS,
    Seen,
    ToyBackbone,
    ToyImages,
    assert_same_bits,
    load,
    saved,
    train,
    weights,
)


@pytest.fixture(autouse=True)
def _warm_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deft, "WARMUP_STEPS", 1)
    monkeypatch.setattr(deft, "MIN_AUC", 0.0)


def make_deft(backbone: type[ToyBackbone] = ToyBackbone, **settings: Any) -> DeFT:
    images = ToyImages()
    phases: dict[str, Any] = {"phase1": Phase1(2, 8), "phase2": Phase2(2, lr=1e-3), "n_ctx": 4}
    return DeFT(images, backbone(images), DeFTSettings(**(phases | settings)), Runtime(1), Seen())


def by_itself(method: DeFT, name: str) -> Tensor:
    """A model's clean log-odds of all images."""
    with torch.no_grad():
        return method.peers[name].prompted()(method.images.pixels)[1]


def naive_clean(odds: Tensor, label: list[int], at_least: int) -> list[bool]:
    kept = [float(odds[i, y]) > 0 for i, y in enumerate(label)]
    for c in range(CLASSES):
        members = [i for i, y in enumerate(label) if y == c]
        for i in sorted(members, key=lambda i: -float(odds[i, c]))[:at_least]:
            kept[i] = True
    return kept


def test_all_images_have_zero_shot_labels_in_both_models() -> None:
    method = make_deft()
    method.begin()
    features = F.normalize(method.backbone.visual(method.images.pixels), dim=-1)
    expected = (features @ method.backbone.zero_shot_text().t()).argmax(dim=1)
    for peer in method.peers.values():
        assert peer.seeds.index.tolist() == list(range(COUNT)) and torch.equal(peer.seeds.label, expected)
    assert method.per_class == COUNT / CLASSES and method.min_kept == 3


def test_an_epoch_is_a_pass_over_all_images_whatever_the_number_of_classes() -> None:
    images = ToyImages(COUNT + 1, batch_size=1)  # no multiple of the classes
    own = DeFTSettings(phase1=Phase1(epochs=2, min_steps=0), phase2=Phase2(epochs=1))
    method = DeFT(images, ToyBackbone(images), own, Runtime(1))
    assert method.steps(1) == method.steps(2) == COUNT + 1


@pytest.mark.parametrize("warm", [True, False])
def test_a_model_s_labels_are_filtered_by_itself(warm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not warm:
        monkeypatch.setattr(deft, "MIN_AUC", 1.0)
    method = make_deft()
    train(method, 1)
    for peer in method.peers.values():
        peer.offset.data += 0.3 * torch.randn(peer.offset.shape, generator=torch.Generator().manual_seed(1))
    method.begin_epoch(1)
    for name, peer in method.peers.items():
        label, odds = peer.seeds.label.tolist(), by_itself(method, name)
        kept = naive_clean(odds, label, 3) if warm else [True] * COUNT
        assert method.labels[name].weight.tolist() == [float(k) for k in kept]
        with torch.no_grad():
            own = peer.prompted()(method.images.pixels)[0].argmax(dim=1).tolist()
        assert method.dual_labels[name].label.tolist() == [
            y if k else z for y, k, z in zip(label, kept, own, strict=True)
        ]
        assert warm != all(kept)


def test_phase_two_learns_the_labels_that_a_model_s_own_phase_one_calls_clean_once() -> None:
    method = make_deft()
    train(method)
    assert len(method.observer.labels) == 1
    for name, peer in method.peers.items():
        kept = naive_clean(by_itself(method, name), peer.seeds.label.tolist(), 3)
        assert torch.equal(peer.labels.label, peer.seeds.label) and peer.labels.keep.tolist() == kept
        assert method.labels[name].index.tolist() == [i for i, k in enumerate(kept) if k]
    predictions, given = method.observer.labels[0]
    assert all(given[name].label is predictions[name].label for name in PEERS)


def test_phase_two_starts_from_pre_trained_weights_and_tuned_prompts() -> None:
    method = make_deft()
    train(method, 2)
    method.begin_epoch(2)
    for peer in method.peers.values():
        for key, value in method.backbone.visual.named_parameters():
            assert torch.equal(peer.student.encoder.get_parameter(key), value)
            assert key.endswith("weight") or not torch.equal(peer.encoder.get_parameter(key), value)
        for head, text in zip((peer.student.positive, peer.student.negative), peer.text_features(), strict=True):
            torch.testing.assert_close(head, text)


def test_the_dual_loss_has_a_complement_that_is_drawn_and_stops_at_the_features() -> None:
    method = make_deft(lambda_dual=0.5)
    method.begin()
    batches = list(method.begin_epoch(0))
    method.steps_done = 3
    losses = method.losses(batches[0], "peer_b")
    part, model = batches[0]["peer_b"], method.peers["peer_b"].learner()
    label = method.dual_labels["peer_b"].of(part["index"]).label
    source = generator(1, "complement", "peer_b", 0, 3)
    odds = model.classify(model.features(part["view"]))[1]
    expected = dual_loss(odds, label, draw_complement(label, CLASSES, source))
    weight, found = losses["dual"]
    torch.testing.assert_close(found, expected)
    assert weight == 0.5 and set(losses) == {"loss", "dual"}
    found.backward()
    peer = method.peers["peer_b"]
    assert not any(p.grad is not None and p.grad.any() for p in peer.encoder.parameters())
    assert bool(peer.prompts.negative.grad.any()) and not peer.offset.requires_grad and not peer.offset.any()
    assert set(make_first_losses(lambda_dual=0.0)) == {"loss"}
    for epoch in (0, 1):  # another draw in each step
        for n, other in enumerate(method.begin_epoch(epoch)):
            assert method.steps_done == n
            method.step(other)


def make_first_losses(**settings: Any) -> dict[str, Any]:
    method = make_deft(**settings)
    method.begin()
    return method.losses(next(iter(method.begin_epoch(0))), "peer_a")


def test_models_do_not_learn_from_each_other() -> None:
    """Another start of the second model changes no bit of the first."""

    class OtherB(ToyBackbone):
        def prompts(self, number: int, num_ctx: int, source: torch.Generator) -> Any:
            made: Any = super().prompts(number, num_ctx, source)
            made.positive.data += 0.3 * number
            return made

    found = []
    for kind in (ToyBackbone, OtherB):
        method = make_deft(kind)
        train(method)
        found.append(weights(method))
    assert {key.split(".")[0] for key in found[0] if not torch.equal(*(own[key] for own in found))} == {"peer_b"}


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_resumed_run_ends_in_the_same_bits(done: int) -> None:
    whole, stopped, resumed = (make_deft() for _ in range(3))
    train(whole)
    train(stopped, done)
    load(resumed, saved(stopped))
    train(resumed, start=done)
    assert_same_bits(weights(whole), weights(resumed))
    assert torch.equal(whole.predict(whole.images.pixels), resumed.predict(whole.images.pixels))


def test_steps_phases_and_predictions() -> None:
    method = make_deft(phase1=Phase1(3, 40))
    assert (method.epochs, method.steps(1), method.steps(2)) == (5, math.ceil(40 / 3), 8)
    assert make_deft().steps(1) == 8  # a pass over the images
    assert [method.phase(epoch) for epoch in range(5)] == [1, 1, 1, 2, 2]
    train(method)
    reported = method.predict_each(method.images.pixels)
    for name, peer in method.peers.items():
        with torch.no_grad():
            logits, _ = peer.inference_model(1.0)(method.images.pixels)
        torch.testing.assert_close(reported[name], logits.softmax(dim=1))
    torch.testing.assert_close(method.predict(method.images.pixels).exp(), sum(reported.values()) / 2)
    assert list(reported) == list(PEERS)
