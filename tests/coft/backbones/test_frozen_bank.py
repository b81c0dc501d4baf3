"""The bank of frozen-stage outputs: each image is computed once, and encoders give the same results from outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coft.backbones import frozen_bank
from coft.backbones.frozen_bank import CHUNK, FrozenBank, frozen_output, make_skippable, share_stages
from coft.backbones.open_clip_models import load_open_clip
from coft.backbones.stages import freeze_stages, stays_frozen
from coft.backbones.visual_tuning import light_module
from coft.method.peer import trainable_copy
from tests.open_clip_models import CONFIGS, write_model

SIZE = 64


@pytest.fixture
def visual(tmp_path: Path) -> Any:
    visual = load_open_clip(f"open_clip:{write_model(tmp_path / 'cnn', CONFIGS['timm-cnn'])}").visual.eval()
    freeze_stages(visual, 3)
    return visual


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def one_by_one(function: Callable[[str], Any], names: Sequence[str]) -> dict[str, Any]:
    with torch.no_grad():
        return {name: function(name) for name in names}


def count_images(visual: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the numbers of images that go through the frozen stages."""
    counts: list[int] = []

    def output(visual: nn.Module, batch: Tensor) -> Tensor:
        counts.append(len(batch))
        return frozen_output(visual, batch)

    monkeypatch.setattr(frozen_bank, "frozen_output", output)
    return counts


def test_an_encoder_accepts_images_and_outputs_of_its_frozen_stages(visual: Any) -> None:
    before, names = copy.deepcopy(visual), [name for name, _ in visual.named_parameters()]
    assert make_skippable(visual, SIZE) and make_skippable(visual, SIZE)
    assert [name for name, _ in visual.named_parameters()] == names
    with torch.no_grad():
        output = frozen_output(visual, images(4))
        assert output.shape[1] != 3
        assert torch.equal(visual(output), before(images(4))) and torch.equal(visual(images(4)), before(images(4)))


@pytest.mark.parametrize("module", ["norms-and-biases", "lora", "all"])
def test_trainable_copies_have_the_same_gradients(visual: Any, module: str) -> None:
    def gradients(visual: Any, batch: Tensor) -> dict[str, Tensor]:
        light = None if module == "all" else light_module(visual, module, torch.Generator().manual_seed(0))
        model = (trainable_copy(visual) if light is None else light).train()
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.eval()
        model(batch).square().sum().backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    plain = gradients(copy.deepcopy(visual).double(), images(3).double())
    assert make_skippable(visual, SIZE)
    visual = visual.double()
    staged = gradients(visual, frozen_output(visual, images(3).double()))
    assert plain.keys() == staged.keys() and not plain.keys() & stays_frozen(visual)
    for name, gradient in plain.items():
        torch.testing.assert_close(staged[name], gradient, rtol=1e-12, atol=1e-12)


def test_unsuitable_encoders_are_not_changed(visual: Any, tmp_path: Path) -> None:
    vit = load_open_clip(f"open_clip:{write_model(tmp_path / 'vit', CONFIGS['vit'])}").visual.eval()
    kind = type(vit)
    assert not make_skippable(vit, SIZE) and type(vit) is kind
    stem, whole = visual.trunk.conv_stem, visual.trunk.forward_features
    visual.trunk.forward_features = lambda x: whole(x * 2)  # would double the outputs as well
    kinds = type(visual), type(stem)
    assert not make_skippable(visual, SIZE) and (type(visual), type(stem)) == kinds


def test_each_image_is_computed_once(visual: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_skippable(visual, SIZE)
    counts, bank = count_images(visual, monkeypatch), FrozenBank(visual, one_by_one)
    batch, others = images(CHUNK + 3), images(2, seed=1)
    first = bank.outputs(batch)
    assert counts == [CHUNK, CHUNK]
    second = bank.outputs(torch.cat([batch[5:7], others, batch[:1]]), alone=True)
    assert counts == [CHUNK] * 3 and torch.equal(second[[0, 1, 4]], first[[5, 6, 0]])
    views = bank.outputs(torch.stack([batch[:2], others], dim=1))
    assert counts == [CHUNK] * 3 and views.shape[:2] == (2, 2) and torch.equal(views[:, 1], second[2:4])
    assert torch.equal(bank.outputs(batch[:1].repeat(3, 1, 1, 1)), first[:1].expand_as(first[:3]))
    with torch.no_grad():
        expected = frozen_output(visual, batch)
    torch.testing.assert_close(first, expected)


def test_outputs_do_not_depend_on_the_batch(visual: Any) -> None:
    assert make_skippable(visual, SIZE)
    batch, bank = images(11), FrozenBank(visual, one_by_one)
    whole, single = bank.outputs(batch), FrozenBank(visual, one_by_one)
    assert torch.equal(torch.cat([single.outputs(batch[i : i + 1]) for i in range(11)]), whole)


def test_each_precision_has_its_own_outputs(visual: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_skippable(visual, SIZE)
    counts, bank = count_images(visual, monkeypatch), FrozenBank(visual, one_by_one)
    bank.outputs(images(2))
    with torch.autocast("cpu", torch.bfloat16):
        assert bank.outputs(images(2)).dtype is torch.bfloat16
    assert counts == [CHUNK, CHUNK] and bank.outputs(images(2)).dtype is torch.float32


def test_the_oldest_outputs_are_dropped_at_the_limit(visual: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_skippable(visual, SIZE)
    with torch.no_grad():
        size = frozen_output(visual, images(1)).nbytes
    counts, bank = count_images(visual, monkeypatch), FrozenBank(visual, one_by_one, max_bytes=3 * size)
    batch = images(5)
    expected = bank.outputs(batch)
    assert bank.bytes == 3 * size and len(bank.kept) == 3
    assert torch.equal(bank.outputs(batch[2:]), expected[2:]) and counts == [CHUNK]
    assert torch.equal(bank.outputs(batch), expected) and counts == [CHUNK] * 2


def test_encoders_share_equal_stages(visual: Any) -> None:
    plain = copy.deepcopy(visual)
    assert make_skippable(visual, SIZE)
    light, full = light_module(visual, "norms-and-biases", torch.Generator().manual_seed(0)), trainable_copy(visual)
    with torch.no_grad():
        for parameter in full.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    assert share_stages([light, full]) and not share_stages([light]) and not share_stages([light, plain])
    norm = next(module for module in full.modules() if isinstance(module, nn.BatchNorm2d))
    norm.running_mean += 1  # in the frozen stem
    assert not share_stages([light, full])
