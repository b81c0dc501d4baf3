"""Image encoders that are dealt out block by block compute what whole ones do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coft.backbones.visual_tuning import light_module
from coft.method.peer import trainable_copy
from coft.method.shards import blocks_of, deal
from coft.method.world import World, is_part
from tests.coft.backbones.test_text_tower import double_clip
from tests.open_clip_models import CONFIGS, make_model
from tests.worlds import in_world

CPU = torch.device("cpu")


def clip_vit() -> Any:
    return double_clip(vision_layers=3).visual


def clip_resnet() -> Any:
    from clip.model import ModifiedResNet

    torch.manual_seed(0)
    return ModifiedResNet([1, 2, 1, 1], 64, 4, 32, 8).double().eval()


def tuned(name: str) -> Any:
    """As full fine-tuning starts from a light module."""
    return trainable_copy(light_module(clip_vit(), name, torch.Generator().manual_seed(0))).double()


ENCODERS: dict[str, tuple[Callable[[], Any], int]] = {  # and how many blocks they have
    "clip's ViT": (clip_vit, 3),
    "clip's ResNet": (clip_resnet, 5),
    "open_clip's ViT": (lambda: make_model(CONFIGS["vit"]).visual.double(), 2),
    "timm's ViT": (lambda: make_model(CONFIGS["timm-vit"]).visual.double(), 6),
    "timm's CNN": (lambda: make_model(CONFIGS["timm-cnn"]).visual.double(), 5),
    "LoRA": (lambda: tuned("lora"), 3),
    "VPT": (lambda: tuned("vpt-deep"), 3),
}


def step(encoder: Any, name: str, rows: slice) -> dict[str, Tensor]:
    """Features of some of four images, and gradients of their part of a batch's loss."""
    side = 64 if name == "timm's CNN" else 32
    source = torch.Generator().manual_seed(1)
    images = torch.randn(4, 3, side, side, dtype=torch.float64, generator=source)[rows]
    features = encoder(images)
    (features * torch.linspace(-1, 1, features.shape[1])).sum().backward()
    gradients = {f"d {key}": value.grad for key, value in encoder.named_parameters() if value.grad is not None}
    return {"features": features.detach(), **gradients}


def make(name: str) -> Any:
    return ENCODERS[name][0]().requires_grad_(True)


@pytest.mark.parametrize("name", ENCODERS)
def test_features_and_gradients_are_those_of_the_whole_encoder(name: str, tmp_path: Path) -> None:
    def dealt(world: World) -> dict[str, Tensor]:
        encoder = make(name)
        deal(world, CPU, encoder)
        found = step(encoder, name, slice(2 * world.rank, 2 * world.rank + 2))
        return {key: value.full_tensor() if is_part(value) else value for key, value in found.items()}

    wanted = step(make(name), name, slice(4))
    first, second = in_world(2, dealt, tmp_path / "two")
    first["features"] = torch.cat([first["features"], second["features"]])
    assert first.keys() == wanted.keys() and len(wanted) > 2
    for key, value in wanted.items():
        apart = (first[key] - value).norm()
        relative = 1e-7 if key == "d trunk.pos_embed" else 1e-12  # timm resamples positions in fp32
        assert apart <= relative * value.norm().clamp_min(1), (key, float(apart))


@pytest.mark.parametrize("name", ENCODERS)
def test_blocks_are_found(name: str) -> None:
    encoder = make(name)
    blocks = blocks_of(encoder)
    assert len(blocks) == ENCODERS[name][1]
    assert not blocks_of(encoder.requires_grad_(False))


def test_a_block_is_whole_only_while_it_runs(tmp_path: Path) -> None:
    def whole_blocks(world: World) -> list[list[int]]:
        encoder = clip_vit().requires_grad_(True)
        blocks = blocks_of(encoder)
        deal(world, CPU, encoder)
        seen: list[list[int]] = []

        def look(*_: Any) -> None:
            seen.append([number for number, block in enumerate(blocks) if not is_part(block.ln_1.weight)])

        for block in blocks:
            block.mlp.register_forward_hook(look)
        features = encoder(torch.randn(2, 3, 32, 32, dtype=torch.float64))
        look()
        features.sum().backward()
        look()
        return seen

    for seen in in_world(2, whole_blocks, tmp_path / "two"):
        assert seen == [[0], [1], [2], [], []]


def test_nothing_is_a_block_that_has_no_layers() -> None:
    assert not blocks_of(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)))
