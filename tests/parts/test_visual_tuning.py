from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from clip.model import CLIP
from torch import nn

from datasets.errors import UserError
from trainers.parts.visual_tuning import DeepPromptedViT, everything, freeze_statistics, is_vit, light_module


def settings(visual: str = "auto") -> Any:
    return SimpleNamespace(TRAINER=SimpleNamespace(COFT=SimpleNamespace(VISUAL=visual, VPT_TOKENS=3)))


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def build(clip_model: CLIP) -> nn.Module:
    return light_module(clip_model.visual, torch.Generator().manual_seed(0), settings())


def trained(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def test_what_trains(clip_model: CLIP) -> None:
    module = build(clip_model)
    if is_vit(clip_model.visual):
        assert trained(module) == {"tokens"}
        assert module.tokens.shape == (2, 3, 64)
    else:
        assert trained(module) == {n for n, _ in clip_model.visual.named_parameters() if "bn" in n or n.endswith("bias")
                                   or "downsample.1" in n}  # fmt: skip
    assert not any(p.requires_grad for p in clip_model.parameters())


def test_frozen_weights_are_shared_and_trained_ones_are_not(clip_model: CLIP) -> None:
    own = {t.data_ptr() for t in clip_model.visual.parameters()}
    for name, parameter in build(clip_model).named_parameters():
        assert (parameter.data_ptr() in own) != (name in trained(build(clip_model))), name


def test_norms_and_biases_start_at_the_frozen_encoder(clip_model: CLIP) -> None:
    if is_vit(clip_model.visual):
        pytest.skip("the default of a ViT is vpt-deep")
    torch.testing.assert_close(build(clip_model)(images()), clip_model.visual(images()))


def naive_prompted(visual: Any, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """VPT-deep image by image, layer by layer, with attention written out."""
    features = []
    for image in x:
        patches = visual.conv1(image[None])[0].flatten(1).t()
        seq = torch.cat([visual.class_embedding[None], patches]) + visual.positional_embedding
        seq = visual.ln_pre(seq)
        for layer, block in enumerate(visual.transformer.resblocks):
            y = torch.cat([seq[:1], tokens[layer], seq[1:]])
            h = block.ln_1(y)
            q, k, v = (h @ block.attn.in_proj_weight.t() + block.attn.in_proj_bias).chunk(3, dim=-1)
            attention = (q @ k.t() / q.shape[-1] ** 0.5).softmax(dim=-1) @ v  # one head
            y = y + block.attn.out_proj(attention)
            y = y + block.mlp(block.ln_2(y))
            seq = torch.cat([y[:1], y[1 + tokens.shape[1] :]])
        features.append(visual.ln_post(seq[0]) @ visual.proj)
    return torch.stack(features)


def test_prompted_vit_equals_a_naive_loop_with_gradients(clip_model: CLIP) -> None:
    if not is_vit(clip_model.visual):
        pytest.skip("needs a ViT")
    module = DeepPromptedViT(clip_model.visual, 3, torch.Generator().manual_seed(0))
    ours = module(images())
    tokens = module.tokens.detach().clone().requires_grad_(True)
    plain = naive_prompted(clip_model.visual, images(), tokens)
    torch.testing.assert_close(ours, plain, atol=1e-4, rtol=1e-3)
    ours.square().sum().backward()
    plain.square().sum().backward()
    torch.testing.assert_close(module.tokens.grad, tokens.grad, atol=1e-3, rtol=1e-2)


def test_everything_copies_and_trains_all_weights(clip_model: CLIP) -> None:
    module = everything(build(clip_model))
    assert all(p.requires_grad for p in module.parameters())
    assert not {p.data_ptr() for p in module.parameters()} & {p.data_ptr() for p in clip_model.parameters()}


def test_statistics_stay_in_training_mode(clip_model: CLIP) -> None:
    module = everything(build(clip_model)).train()
    freeze_statistics(module)
    before = {name: value.clone() for name, value in module.named_buffers()}
    module(images() * 10)
    assert all(torch.equal(before[name], value) for name, value in module.named_buffers())


def test_mistakes_are_named(clip_model: CLIP) -> None:
    with pytest.raises(UserError, match=r"TRAINER\.COFT\.VISUAL is 'vpt'; did you mean"):
        light_module(clip_model.visual, torch.Generator(), settings("vpt"))
    if not is_vit(clip_model.visual):
        with pytest.raises(UserError, match="needs a ViT backbone"):
            light_module(clip_model.visual, torch.Generator(), settings("vpt-deep"))
