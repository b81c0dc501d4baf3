"""Transforms: order, printed lines, and effect on images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dassl.config import get_cfg_default
from dassl.data.transforms import INTERPOLATION_MODES, build_transform
from dassl.utils import set_random_seed
from toys import UPSTREAM, upstream_fault

NORMALIZATION = "normalization (mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])"
TENSOR = "to torch tensor of range [0, 1]"
# Choices in the order of application, with their printed lines.
TRAIN = {
    "random_translation": "random translation",
    "random_crop": "random crop (padding = 4)",
    "random_resized_crop": "random resized crop (size=(24, 20), scale=(0.08, 1.0))",
    "random_flip": "random flip",
    "imagenet_policy": "imagenet policy",
    "cifar10_policy": "cifar10 policy",
    "svhn_policy": "svhn policy",
    "randaugment": "randaugment (n=2, m=10)",
    "randaugment_fixmatch": "randaugment_fixmatch (n=2)",
    "randaugment2": "randaugment2 (n=2)",
    "colorjitter": "color jitter (brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)",
    "randomgrayscale": "random gray scale",
    "gaussian_blur": "gaussian blur (kernel=21)",
    "cutout": "cutout (n_holes=1, length=16)",
    "normalize": NORMALIZATION,
    "gaussian_noise": "gaussian noise (mean=0.0, std=0.15)",
    "instance_norm": "instance normalization",
}
BROKEN_UPSTREAM = {"imagenet_policy", "cifar10_policy", "svhn_policy", "randaugment"}


def transform_cfg(*choices: str, **options: Any) -> Any:
    cfg = get_cfg_default()
    cfg.INPUT.merge_from_list(["SIZE", (24, 20), "TRANSFORMS", choices, *(x for pair in options.items() for x in pair)])
    return cfg


def picture(height: int = 40, width: int = 31) -> Image.Image:
    pixels = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choices=st.lists(st.sampled_from([*TRAIN, "center_crop"]), unique=True), seed=st.integers(0, 99))
def test_order_does_not_depend_on_choices(choices: list[str], seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    if UPSTREAM:
        choices = [choice for choice in choices if choice not in BROKEN_UPSTREAM]
    capsys.readouterr()
    transform = build_transform(transform_cfg(*choices), is_train=True)
    crops = {"random_crop", "random_resized_crop"} & set(choices)
    expected = [] if crops else ["resize to 24x20"]
    for name, line in TRAIN.items():
        expected += [TENSOR] if name == "cutout" else []
        expected += [line] if name in choices else []
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["Building transform_train", *(f"+ {line}" for line in expected)]
    assert len(transform.transforms) == len(expected)
    results = []
    for _ in range(2):
        set_random_seed(seed)
        results.append(transform(picture()))
    assert results[0].shape == (3, 24, 20)
    assert results[0].dtype == torch.float32
    assert torch.isfinite(results[0]).all()
    assert torch.equal(*results)


@upstream_fault("np.int")
@pytest.mark.parametrize("choice", sorted(BROKEN_UPSTREAM))
def test_policies_run_with_all_seeds(choice: str) -> None:
    transform = build_transform(transform_cfg(choice))
    results = set()
    for seed in range(60):
        set_random_seed(seed)
        result = transform(picture())
        assert result.shape == (3, 24, 20)
        results.add(result.sum().item())
    assert len(results) > 20


def test_transform_of_tests(capsys: pytest.CaptureFixture[str]) -> None:
    transform = build_transform(transform_cfg("random_flip", "cutout", "normalize", "instance_norm"), is_train=False)
    assert capsys.readouterr().out.splitlines() == [
        "Building transform_test",
        "+ resize the smaller edge to 24",
        "+ 24x20 center crop",
        f"+ {TENSOR}",
        f"+ {NORMALIZATION}",
        "+ instance normalization",
    ]
    assert transform(picture()).shape == (3, 24, 20)
    assert torch.equal(transform(picture()), transform(picture()))


def test_normalization() -> None:
    plain = build_transform(transform_cfg(), is_train=False)(picture())
    normalized = build_transform(transform_cfg("normalize"), is_train=False)(picture())
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    assert plain.min() >= 0 and plain.max() <= 1
    torch.testing.assert_close(normalized, (plain - mean) / std)


def test_instance_normalization() -> None:
    result = build_transform(transform_cfg("instance_norm"), is_train=False)(picture())
    torch.testing.assert_close(result.mean((1, 2)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(result.std((1, 2)), torch.ones(3), atol=1e-4, rtol=0)


def test_cutout_masks_rectangles() -> None:
    transform = build_transform(transform_cfg("cutout", CUTOUT_LEN=6))
    white = Image.new("RGB", (30, 30), "white")
    areas = set()
    for seed in range(30):
        set_random_seed(seed)
        result = transform(white)
        hole = (result == 0).all(dim=0)
        assert torch.equal(result == 0, hole.expand_as(result))
        rows, columns = hole.any(dim=1).sum().item(), hole.any(dim=0).sum().item()
        assert hole.sum() == rows * columns
        areas.add((rows, columns))
    assert max(areas) == (6, 6)


@pytest.mark.parametrize("choice", ["random_flip", "gaussian_noise", "random_translation"])
def test_random_steps_are_applied_half_of_the_time(choice: str) -> None:
    transform = build_transform(transform_cfg(choice))
    plain = build_transform(transform_cfg())(picture())
    changed = 0
    for seed in range(200):
        set_random_seed(seed)
        changed += not torch.equal(transform(picture()), plain)
    assert 65 < changed < 135


def test_explicit_choices_and_no_transform(capsys: pytest.CaptureFixture[str]) -> None:
    cfg = transform_cfg("random_flip", INTERPOLATION="nearest")
    transform = build_transform(cfg, choices=["normalize"])
    assert transform.transforms[0].interpolation == INTERPOLATION_MODES["nearest"]
    printed = capsys.readouterr().out
    assert "random flip" not in printed and NORMALIZATION in printed
    with pytest.raises(AssertionError):
        build_transform(cfg, choices=["random_flop"])
    assert build_transform(transform_cfg("random_flip", NO_TRANSFORM=True)) is None


@upstream_fault("reads a key that UPL's config does not have")
def test_default_scale_of_crops() -> None:
    cfg = transform_cfg("random_resized_crop")
    del cfg.INPUT["RRCROP_SCALE"]
    assert tuple(build_transform(cfg).transforms[0].scale) == (0.08, 1.0)
