from __future__ import annotations

from typing import Any

import pytest
import torch
from clip.model import CLIP
from torch import nn

from coft.backbones.low_rank import LowRank
from coft.backbones.visual_tuning import VPT_TOKENS, is_vit, light_module
from coft.core.errors import UserError

from .references import EXACT, double_clip


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def build(clip_model: CLIP, visual: str = "auto") -> nn.Module:
    return light_module(clip_model.visual, visual, torch.Generator().manual_seed(0))


def trained_names(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def test_the_weights_that_train(clip_model: CLIP) -> None:
    module = build(clip_model)
    if is_vit(clip_model.visual):
        assert trained_names(module) == {"tokens"}
        assert module.tokens.shape == (2, VPT_TOKENS, 64)
    else:
        names = [name for name, _ in clip_model.visual.named_parameters()]
        assert trained_names(module) == {n for n in names if "bn" in n or n.endswith("bias") or "downsample.1" in n}
    assert not any(p.requires_grad for p in clip_model.parameters())


def test_only_frozen_weights_are_shared(clip_model: CLIP) -> None:
    addresses = {t.data_ptr() for t in clip_model.visual.parameters()}
    for name, parameter in build(clip_model).named_parameters():
        assert (parameter.data_ptr() in addresses) != (name in trained_names(build(clip_model))), name


def test_none_is_the_frozen_encoder(clip_model: CLIP) -> None:
    module = build(clip_model, "none")
    assert torch.equal(module(images()), clip_model.visual(images()))
    assert not trained_names(module)


def naive_vit(visual: Any, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """VPT with attention written out."""
    features = []
    for image in x:
        patches = visual.conv1(image[None])[0].flatten(1).t()
        seq = torch.cat([visual.class_embedding[None], patches]) + visual.positional_embedding
        seq = visual.ln_pre(seq)
        for layer, block in enumerate(visual.transformer.resblocks):
            if layer == 0:
                y = torch.cat([seq[:1], tokens[0], seq[1:]])
            else:
                y = torch.cat([seq[:1], tokens[layer], seq[1 + tokens.shape[1] :]])
            h = block.ln_1(y)
            q, k, v = (h @ block.attn.in_proj_weight.t() + block.attn.in_proj_bias).chunk(3, dim=-1)
            attention = (q @ k.t() / q.shape[-1] ** 0.5).softmax(dim=-1) @ v  # one head
            y = y + block.attn.out_proj(attention)
            seq = y + block.mlp(block.ln_2(y))
        features.append(visual.ln_post(seq[0]) @ visual.proj)
    return torch.stack(features)


def test_prompted_vit_equals_a_naive_loop_with_gradients() -> None:
    clip_model, x = double_clip(vision_layers=2), images().double()
    module = build(clip_model, "vpt-deep").double()
    output = module(x)
    tokens = module.tokens.detach().clone().requires_grad_(True)
    assert len(tokens) == 2
    expected = naive_vit(clip_model.visual, x, tokens)
    torch.testing.assert_close(output, expected, **EXACT)
    output.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(module.tokens.grad, tokens.grad, **EXACT)


def test_low_rank_updates_start_as_the_frozen_encoder_and_train(clip_model: CLIP) -> None:
    module, frozen = build(clip_model, "lora"), clip_model.visual(images())
    torch.testing.assert_close(module(images()), frozen)
    assert trained_names(module) and all(name.endswith((".down", ".up")) for name in trained_names(module))
    module(images()).square().sum().backward()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith(".up"):
                parameter -= parameter.grad / parameter.grad.norm()
    assert not torch.allclose(module(images()), frozen, atol=1e-3)
    torch.testing.assert_close(clip_model.visual(images()), frozen)


@pytest.mark.parametrize(("shape", "blocks", "tuned"), [((12, 5), 3, (0, 2)), ((4, 3, 2, 2), 1, (0,))])
def test_low_rank_update_equals_a_naive_loop_with_gradients(
    shape: tuple[int, ...], blocks: int, tuned: tuple[int, ...]
) -> None:
    source = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=source, dtype=torch.float64)
    module = LowRank(weight, 2, source, blocks, tuned).double()
    torch.testing.assert_close(module(weight), weight)
    with torch.no_grad():
        module.up.copy_(torch.randn(module.up.shape, generator=source))
    down, up = (p.detach().clone().requires_grad_(True) for p in (module.down, module.up))
    rows = []
    for row in range(shape[0]):
        block, within = divmod(row, shape[0] // blocks)
        flat = weight[row].flatten()
        if block in tuned:
            i = tuned.index(block)
            flat = flat + sum(up[i, within, r] * down[i, r] for r in range(2))
        rows.append(flat.view(shape[1:]))
    expected, output = torch.stack(rows), module(weight)
    torch.testing.assert_close(output, expected)
    pull = torch.randn(shape, generator=source, dtype=torch.float64)
    (output * pull).sum().backward()
    (expected * pull).sum().backward()
    torch.testing.assert_close(module.down.grad, down.grad)
    torch.testing.assert_close(module.up.grad, up.grad)


@pytest.mark.parametrize("name", ["vpt-deep", "lora", "norms-and-biases"])
def test_a_light_module_is_on_the_device_of_the_encoder(name: str) -> None:
    module = build(double_clip(vision_layers=2).to("meta"), name)
    assert {value.device.type for value in module.state_dict().values()} == {"meta"}


def test_vpt_on_a_resnet_and_unknown_names_are_refused(clip_model: CLIP) -> None:
    if not is_vit(clip_model.visual):
        with pytest.raises(UserError, match="VISUAL vpt-deep needs a ViT backbone; with a ResNet set one of lora"):
            build(clip_model, "vpt-deep")
    with pytest.raises(UserError, match="VISUAL is 'lorra'; did you mean 'lora'"):
        build(clip_model, "lorra")
