from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from coft.images.views import AUGMENTATIONS, VIEWS, Inputs, normalize, view_of

CLIP_INPUTS = Inputs(32, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
WIDE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 50, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", AUGMENTATIONS)
@pytest.mark.parametrize("kinds", [*([kind] for kind in VIEWS), ["strong", "weak"]])
def test_views_have_the_size_of_the_backbone(kind: str, kinds: list[str]) -> None:
    make = view_of(replace(CLIP_INPUTS, augment=kind), kinds)
    image = make(WIDE)
    assert image.shape == (*((2,) if len(kinds) == 2 else ()), 3, 32, 32) and image.dtype == torch.uint8
    others = [make(WIDE) for _ in range(20)]
    assert all(torch.equal(image, other) for other in others) == (kinds == ["plain"])


def test_symbols_are_not_mirrored_or_rotated() -> None:
    """An image with a dark left half keeps it in all weak views."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, 16:] = 255
    make = VIEWS["weak"](replace(CLIP_INPUTS, augment="symbols"))
    darker = [make(Image.fromarray(pixels)) / 255 for _ in range(40)]
    assert all(x[..., :8].mean() < x[..., -8:].mean() and x[:, :, :2].std() < 0.15 for x in darker)


@pytest.mark.parametrize(("kind", "upright"), [("natural", True), ("aerial", False)])
def test_only_aerial_images_are_rotated(kind: str, upright: bool) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[16:] = 255
    make = VIEWS["weak"](replace(CLIP_INPUTS, augment=kind))
    views = [make(Image.fromarray(pixels)) / 255 for _ in range(40)]
    assert all(x[:, :4].mean() < x[:, -4:].mean() + 1e-3 for x in views) == upright


def test_normalisation_equals_a_naive_loop() -> None:
    batch = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (4, 2, 3, 8, 8), dtype=np.uint8))
    mean, std = CLIP_INPUTS.mean, CLIP_INPUTS.std
    for image, numbers in zip(batch.flatten(0, 1), normalize(CLIP_INPUTS)(batch).flatten(0, 1), strict=True):
        naive = torch.stack([(image[c] / 255 - mean[c]) / std[c] for c in range(3)])
        assert torch.allclose(numbers, naive, atol=1e-6)


@pytest.mark.parametrize(("kind", "mirrored"), [("natural", True), ("symbols", False), ("aerial", True)])
def test_dassl_s_transforms_do_not_mirror_symbols(configure: Callable[..., Any], kind: str, mirrored: bool) -> None:
    assert ("random_flip" in configure("CoOp", INPUT__AUGMENT=kind).INPUT.TRANSFORMS) == mirrored
