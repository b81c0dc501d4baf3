"""A peer: the start of Phase II, and its state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from clip.model import CLIP
from torch import nn

from coft.backbones.prompts import DualPrompts
from coft.backbones.visual_tuning import light_module
from coft.method.peer import Peer

NAMES = ["cat", "dog", "bird"]


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def make_peer(clip_model: CLIP, seed: int = 0, **options: Any) -> Peer:
    source = torch.Generator().manual_seed(seed)
    prompts = DualPrompts(clip_model, NAMES, "a photo of a {}.", generator=source)
    encoder = light_module(clip_model.visual, "auto", source)
    return Peer(prompts, encoder, float(clip_model.logit_scale.exp()), **options)


def perturb(module: nn.Module, seed: int = 5) -> None:
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=source) * 0.05)


def trained_peer(clip_model: CLIP, phase: int) -> Peer:
    peer = make_peer(clip_model)
    perturb(peer)
    if phase == 2:
        peer.enter_phase2()
        perturb(peer.student)
        peer.update_ema()
    return peer


def same_state(a: Peer, b: Peer) -> bool:
    first, second = a.state_dict(), b.state_dict()
    tensors = [key for key, value in first.items() if isinstance(value, torch.Tensor)]
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in tensors)


def test_phase_2_starts_from_the_end_of_phase_1(clip_model: CLIP) -> None:
    peer = trained_peer(clip_model, phase=1)
    with torch.no_grad():
        before = peer.prompted()(images())
        peer.enter_phase2()
        for classifier in (peer.learner(), peer.teacher(), peer.inference_model(0.5)):
            for x, y in zip(before, classifier(images()), strict=True):
                torch.testing.assert_close(x, y, atol=1e-4, rtol=1e-4)


def test_the_state_of_phase_1_has_no_frozen_weights(clip_model: CLIP) -> None:
    peer = trained_peer(clip_model, phase=1)
    state = peer.state_dict()
    trained = {name for name, p in peer.named_parameters() if p.requires_grad}
    assert set(state) == trained | {"negative_residual"}


@pytest.mark.parametrize("phase", [1, 2])
@pytest.mark.parametrize("current", [1, 2])
def test_a_state_loads_into_a_peer_of_either_phase(clip_model: CLIP, phase: int, current: int, tmp_path: Any) -> None:
    peer, other = trained_peer(clip_model, phase), make_peer(clip_model, 1)
    other.set_phase(current)
    torch.save(peer.state_dict(), tmp_path / "peer.pt")
    other.set_phase(phase)
    other.load_state_dict(torch.load(tmp_path / "peer.pt", weights_only=True))
    assert other.phase == phase and same_state(peer, other)
    for a, b in zip(peer.inference_model(0.5)(images()), other.inference_model(0.5)(images()), strict=True):
        assert torch.equal(a, b)


def test_loading_does_not_change_the_frozen_clip(clip_model: CLIP) -> None:
    before = {k: v.clone() for k, v in clip_model.state_dict().items()}
    other = make_peer(clip_model, 1)
    other.set_phase(2)
    other.load_state_dict(trained_peer(clip_model, 2).state_dict())
    assert all(torch.equal(before[k], v) for k, v in clip_model.state_dict().items())


@pytest.mark.parametrize("missing", ["prompts.positive.ctx", "student.model.positive"])
def test_an_incomplete_state_is_refused(clip_model: CLIP, missing: str) -> None:
    state = trained_peer(clip_model, 2).state_dict()
    del state[missing]
    other = make_peer(clip_model)
    other.set_phase(2)
    with pytest.raises(RuntimeError, match=missing):
        other.load_state_dict(state)


def test_negative_features_start_from_their_mean(clip_model: CLIP) -> None:
    peer = make_peer(clip_model)
    _, plain = peer.prompts()
    negative = peer.text_features()[1]
    expected = nn.functional.normalize(plain.mean(0), dim=0).expand(3, -1)
    torch.testing.assert_close(negative, expected)
    perturb(peer.prompts)  # learned changes of the prompt are added
    change = peer.prompts()[1] - plain
    torch.testing.assert_close(peer.text_features()[1], nn.functional.normalize(expected + change, dim=-1))
