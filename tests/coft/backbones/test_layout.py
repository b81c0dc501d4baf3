"""Faster layouts of image encoders against the plain ones."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from coft.backbones.joint import JointClip
from coft.backbones.layout import PatchProduct, optimize_layout
from coft.backbones.open_clip_models import load_open_clip
from tests.conftest import make_clip
from tests.open_clip_models import CONFIGS, write_model

VITS = ("vit", "timm-vit")


def _results(visual: Any, images: torch.Tensor) -> list[torch.Tensor]:
    """Features and gradients of all weights."""
    features = visual(images)
    weights = [weight for weight in visual.parameters() if weight.requires_grad]
    return [features, *torch.autograd.grad(features.square().sum(), weights, allow_unused=True)]


@pytest.mark.parametrize("bias", [False, True])
def test_the_patch_product_equals_the_convolution(bias: bool) -> None:
    plain = torch.nn.Conv2d(3, 6, (4, 2), (4, 2), bias=bias).double()
    product = copy.deepcopy(plain)
    product.__class__ = PatchProduct
    images = torch.randn(2, 3, 13, 9, dtype=torch.float64)  # not a multiple of the patch
    torch.testing.assert_close(_results(product, images), _results(plain, images), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", VITS)
def test_a_transformer_has_the_same_features_and_gradients(kind: str, tmp_path: Path) -> None:
    visual: Any = load_open_clip(f"open_clip:{write_model(tmp_path / kind, CONFIGS[kind])}").visual.double()
    images = torch.randn(2, 3, *visual.image_size, dtype=torch.float64)
    faster = copy.deepcopy(visual)
    optimize_layout(faster, visual.image_size[0])
    assert any(isinstance(module, PatchProduct) for module in faster.modules())
    assert faster.state_dict().keys() == visual.state_dict().keys()
    for each in (visual, faster):
        each.requires_grad_(True)
    torch.testing.assert_close(_results(faster, images), _results(visual, images), rtol=1e-9, atol=1e-12)


def test_both_members_of_a_pair_are_optimised() -> None:
    pair = JointClip([make_clip(vit=True, seed=seed) for seed in (0, 1)])
    optimize_layout(pair.visual, 32)
    assert sum(isinstance(module, PatchProduct) for module in pair.visual.modules()) == 2
