from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from clip.model import CLIP
from torch import nn

from coft.backbones.prompts import DualPrompts
from coft.backbones.visual_tuning import light_module
from coft.labelling.pseudo_labels import PseudoLabels
from coft.method.negative_prompt import clean_log_odds
from coft.method.peer import Classifier, Peer, check_identity, interpolate, ramped_ema
from tests.conftest import make_clip

NAMES = ["cat", "dog", "bird"]
IDENTITY = {"backbone": "abc", "class list": "cat | dog | bird"}


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def make_peer(clip_model: CLIP, seed: int = 0, identity: dict[str, str] | None = None, **options: Any) -> Peer:
    source = torch.Generator().manual_seed(seed)
    prompts = DualPrompts(clip_model, NAMES, "a photo of a {}.", generator=source)
    encoder = light_module(clip_model.visual, "auto", source)
    scale = float(clip_model.logit_scale.exp())
    return Peer(prompts, encoder, scale, IDENTITY | (identity or {}), **options)


def shake(module: nn.Module, seed: int = 5) -> None:
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=source) * 0.05)


def trained_peer(clip_model: CLIP, phase: int) -> Peer:
    peer = make_peer(clip_model)
    shake(peer)
    peer.take_seeds(PseudoLabels.certain(torch.tensor([1, 4]), torch.tensor([0, 2])))
    if phase == 2:
        peer.enter_phase2()
        shake(peer.student)
        peer.update_ema()
        peer.take_labels(PseudoLabels.of_pool(torch.tensor([0, 1]), torch.tensor([0.25, 0.0])))
    return peer


def same(a: Peer, b: Peer) -> bool:
    first, second = a.state_dict(), b.state_dict()
    tensors = [key for key, value in first.items() if isinstance(value, torch.Tensor)]
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in tensors)


def test_classifier_equals_its_definition(clip_model: CLIP) -> None:
    classifier = make_peer(clip_model).prompted()
    logits, odds = classifier(images())
    f = nn.functional.normalize(clip_model.visual(images()) if not hasattr(classifier.encoder, "tokens")
                                else classifier.encoder(images()), dim=-1)  # fmt: skip
    scale = clip_model.logit_scale.exp()
    torch.testing.assert_close(logits, scale * f @ classifier.positive.t(), atol=1e-4, rtol=1e-4)
    expected = clean_log_odds(f, classifier.positive, classifier.negative, scale)
    torch.testing.assert_close(odds, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("live", [True, False])
def test_routing_of_the_clean_log_odds_gradient(clip_model: CLIP, live: bool) -> None:
    peer = make_peer(clip_model)
    peer.negative_to_visual = live
    peer.prompted()(images())[1].square().sum().backward()
    visual = [p.grad for p in peer.encoder.parameters() if p.requires_grad]
    assert not peer.prompts.positive.ctx.grad.any() and peer.prompts.negative.ctx.grad.any()
    assert any(g is not None and g.abs().sum() > 0 for g in visual) == live


def test_phase_2_begins_where_phase_1_ended(clip_model: CLIP) -> None:
    peer = trained_peer(clip_model, phase=1)
    with torch.no_grad():
        before = peer.prompted()(images())
        peer.enter_phase2()
        for classifier in (peer.learner(), peer.teacher(), peer.inference_model(0.5)):
            for x, y in zip(before, classifier(images()), strict=True):
                torch.testing.assert_close(x, y, atol=1e-4, rtol=1e-4)


def test_peers_share_the_frozen_clip_and_nothing_else(clip_model: CLIP) -> None:
    a, b = make_peer(clip_model, 0), make_peer(clip_model, 1)
    frozen = {p.data_ptr() for p in clip_model.parameters()}
    own = [{p.data_ptr() for p in peer.parameters()} - frozen for peer in (a, b)]
    assert own[0] and not own[0] & own[1]
    before = copy.deepcopy(b.state_dict())
    shake(a)
    assert all(torch.equal(before[k], v) for k, v in b.state_dict().items() if isinstance(v, torch.Tensor))


def test_state_of_phase_1_has_no_frozen_weight(clip_model: CLIP) -> None:
    peer = trained_peer(clip_model, phase=1)
    state = peer.state_dict()
    trained = {name for name, p in peer.named_parameters() if p.requires_grad}
    assert set(state) == trained | {"offset", "_extra_state"}


@pytest.mark.parametrize("phase", [1, 2])
@pytest.mark.parametrize("found_in", [1, 2])
def test_state_round_trips_into_a_peer_of_either_phase(
    clip_model: CLIP, phase: int, found_in: int, tmp_path: Any
) -> None:
    peer, other = trained_peer(clip_model, phase), make_peer(clip_model, 1)
    if found_in == 2:
        other.enter_phase2()
    torch.save(peer.state_dict(), tmp_path / "peer.pt")
    other.load_state_dict(torch.load(tmp_path / "peer.pt", weights_only=True))
    assert other.phase == phase and same(peer, other)
    for own in ("seeds", "labels"):
        mine, yours = getattr(peer, own), getattr(other, own)
        for field in ("index", "label", "weight"):
            assert torch.equal(getattr(mine, field), getattr(yours, field))
    for mine, yours in zip(peer.inference_model(0.5)(images()), other.inference_model(0.5)(images()), strict=True):
        assert torch.equal(mine, yours)


def test_frozen_clip_survives_loading(clip_model: CLIP) -> None:
    before = {k: v.clone() for k, v in clip_model.state_dict().items()}
    make_peer(clip_model, 1).load_state_dict(trained_peer(clip_model, 2).state_dict())
    assert all(torch.equal(before[k], v) for k, v in clip_model.state_dict().items())


@pytest.mark.parametrize("missing", ["prompts.positive.ctx", "student.positive"])
def test_a_state_with_a_hole_is_refused(clip_model: CLIP, missing: str) -> None:
    state = trained_peer(clip_model, 2).state_dict()
    del state[missing]
    with pytest.raises(RuntimeError, match=missing):
        make_peer(clip_model).load_state_dict(state)


def test_another_backbone_or_class_list_is_named(clip_model: CLIP) -> None:
    state = trained_peer(clip_model, 1).state_dict()
    with pytest.raises(ValueError, match=r"made with another backbone \(abc, here xyz\)"):
        make_peer(clip_model, identity={"backbone": "xyz"}).load_state_dict(state)
    with pytest.raises(ValueError, match="another class list"):
        make_peer(clip_model, identity={"class list": "cat | dog"}).load_state_dict(state)
    for wrong in ({"ctx": torch.zeros(4, 64)}, {"_extra_state": {"seeds": {}}}):
        with pytest.raises(ValueError, match="no checkpoint of a peer"):
            make_peer(clip_model).load_state_dict(wrong)
    check_identity({"a": "1", "more": "2"}, {"a": "1"})


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_interpolation_equals_a_naive_loop(weight: float) -> None:
    torch.manual_seed(0)
    start, end = (
        Classifier(nn.Linear(3, 4), nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.randn(2, 4)), 5.0) for _ in "ab"
    )
    result = interpolate(start, end, weight)
    for a, b, c in zip(start.encoder.parameters(), end.encoder.parameters(), result.encoder.parameters(), strict=True):
        torch.testing.assert_close(c, (1 - weight) * a + weight * b)
    for name in ("positive", "negative"):
        a, b = (getattr(x, name) / getattr(x, name).norm(dim=1, keepdim=True) for x in (start, end))
        torch.testing.assert_close(getattr(result, name), (1 - weight) * a + weight * b)
    fitted = interpolate(start, end, weight, ["positive"])
    assert torch.equal(fitted.positive, result.positive)
    assert torch.equal(fitted.negative, end.negative) and fitted.negative is not end.negative


def test_a_short_average_forgets_its_start_and_a_long_one_has_the_decay() -> None:
    update = ramped_ema(0.99)
    for steps, most in ((50, 0.03), (500, 0.02)):
        average = [torch.ones(1)]
        for n in range(1, steps):
            update(average, [torch.zeros(1)], n)
        assert average[0].item() < most
    late = [torch.ones(1)]
    update(late, [torch.zeros(1)], 5000)
    assert late[0].item() == pytest.approx(0.99)


def test_moving_average_equals_a_naive_loop(clip_model: CLIP) -> None:
    peer = trained_peer(clip_model, 1)
    peer.enter_phase2()
    student: Any = peer.student
    average = None
    for seed in range(4):
        shake(student, seed)
        peer.update_ema()
        value = student.positive.detach().clone()
        decay = min(0.99, (1 + seed) / (10 + seed))
        average = value if average is None else decay * average + (1 - decay) * value
    torch.testing.assert_close(peer.teacher().positive, average)


def test_batch_norm_statistics_never_move(clip_model: CLIP) -> None:
    peer = trained_peer(clip_model, 2)
    peer.train()
    before = {name: value.clone() for name, value in peer.student.named_buffers()}
    peer.learner()(images() * 5)
    assert all(torch.equal(before[name], value) for name, value in peer.student.named_buffers())


@pytest.mark.parametrize("from_mean", [True, False])
def test_negative_features_start_where_they_should(clip_model: CLIP, from_mean: bool) -> None:
    peer = make_peer(clip_model, negative_from_mean=from_mean)
    _, plain = peer.prompts()
    negative = peer.text_features()[1]
    expected = nn.functional.normalize(plain.mean(0), dim=0).expand(3, -1) if from_mean else plain
    torch.testing.assert_close(negative, expected)
    shake(peer.prompts)  # what is learned moves them as it moves the prompt's features
    moved = peer.prompts()[1] - plain
    torch.testing.assert_close(peer.text_features()[1], nn.functional.normalize(expected + moved, dim=-1))


def test_phase_two_may_begin_with_another_encoder(clip_model: CLIP) -> None:
    peer = make_peer(clip_model, phase2_encoder=clip_model.visual)
    names = {name for name, _ in peer.named_parameters()}
    shake(peer)
    peer.enter_phase2()
    for name, value in clip_model.visual.named_parameters():
        own = peer.student.encoder.get_parameter(name)
        assert torch.equal(own, value) and own.data_ptr() != value.data_ptr() and own.requires_grad
    for a, b in zip(peer.text_features(), (peer.student.positive, peer.student.negative), strict=True):
        torch.testing.assert_close(a, b)
    assert names == {name for name, _ in peer.named_parameters() if not name.startswith(("student", "ema"))}


@pytest.mark.parametrize("phase", [1, 2])
def test_negative_vectors_are_those_that_are_set(clip_model: CLIP, phase: int) -> None:
    peer = trained_peer(clip_model, phase)
    before = peer.prompted()(images())[0].detach()
    wanted = nn.functional.normalize(torch.randn(peer.offset.shape, generator=torch.Generator().manual_seed(3)), dim=-1)
    peer.set_negative(wanted)
    for classifier in (peer.learner(), peer.teacher()):
        torch.testing.assert_close(nn.functional.normalize(classifier.negative, dim=-1), wanted)
    torch.testing.assert_close(peer.prompted()(images())[0], before)
    if phase == 2:
        peer.update_ema()
        torch.testing.assert_close(peer.teacher().negative, wanted)


@pytest.mark.parametrize("own", [True, False])
def test_negative_vectors_have_a_part_of_each_class_s_own(clip_model: CLIP, own: bool) -> None:
    peer = make_peer(clip_model, class_negative=own)
    peer.prompted()(images())[1].square().sum().backward()
    assert (peer.offset.grad is not None and bool(peer.offset.grad.any())) == own


def test_the_start_of_negative_features_is_part_of_a_checkpoint(clip_model: CLIP) -> None:
    peer, other = make_peer(clip_model, seed=0), make_peer(clip_model, seed=1)
    assert not torch.equal(peer.offset, other.offset)
    other.load_state_dict(peer.state_dict())
    assert torch.equal(peer.offset, other.offset)


@pytest.mark.parametrize("phase", [1, 2])
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_the_model_that_is_tested_is_averaged_in_phase_two_alone(clip_model: CLIP, phase: int, share: float) -> None:
    peer = trained_peer(clip_model, phase)
    tested, start, end = peer.inference_model(share), peer.prompted(), peer.teacher()
    if phase == 1 or share == 1:
        assert tested.encoder is end.encoder
        return
    for name, value in tested.encoder.named_parameters():
        first, last = start.encoder.get_parameter(name), end.encoder.get_parameter(name)
        torch.testing.assert_close(value, (1 - share) * first + share * last)
        assert not value.requires_grad


def kept_bytes(work: Callable[[], Any]) -> tuple[Any, int]:
    """Run something; how many bytes of activations it keeps for the gradients."""
    total = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal total
        total += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = work()
    return result, total


@pytest.mark.parametrize("vit", [False, True])
def test_micro_batches_change_the_memory_and_nothing_else(vit: bool) -> None:
    encoder: Any = make_clip(vit).visual.double().eval()
    if vit:
        encoder.transformer.resblocks.extend(copy.deepcopy(block) for block in list(encoder.transformer.resblocks) * 2)
    for module in encoder.modules():
        if isinstance(module, nn.LayerNorm):  # CLIP's own compute in fp32 whatever they are given
            module.forward = nn.LayerNorm.forward.__get__(module)
    source = torch.Generator().manual_seed(0)
    heads = [nn.functional.normalize(torch.randn(3, encoder.output_dim, generator=source).double()) for _ in range(2)]
    views = torch.randn(7, 3, 32, 32, generator=source).double()
    results, memory = [], []
    for size in (0, 3):
        encoder.requires_grad_(True).zero_grad()
        classifier = Classifier(encoder, heads[0], heads[1], 10.0, micro_batch=size)
        (logits, odds), kept = kept_bytes(lambda c=classifier: c(views))  # type: ignore[misc]
        (logits.logsumexp(dim=1).sum() + odds.sigmoid().sum()).backward()
        results.append([logits, odds, *(p.grad.clone() for p in encoder.parameters())])
        memory.append(kept)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    assert memory[1] < memory[0] / 5


def test_vectors_of_other_shapes_are_refused() -> None:
    for shapes in (((2, 3), (3, 2)), ((3,), (3,))):
        with pytest.raises(ValueError, match=r"not \(C, embed_dim\)"):
            Classifier(nn.Identity(), *(torch.zeros(shape) for shape in shapes), 1.0)
