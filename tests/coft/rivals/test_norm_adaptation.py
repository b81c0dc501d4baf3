"""Zero-shot CLIP, and norms adapted to statistics of the unlabeled images."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coft.rivals.norm_adaptation import NormAdaptation, NormAdaptationSettings, adapt_batch_norms, centre_last_norm
from coft.rivals.zero_shot import ZeroShot
from tests.coft.rivals.making import make_clip_backbone
from tests.coft.toys import ToyImages, assert_same_bits, checkpoint_of, load, make_method, train, weights
from tests.conftest import make_clip


def tiny_net() -> nn.Sequential:
    torch.manual_seed(3)
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5))
    net = nn.Sequential(*layers).double().eval()
    for norm in (net[1], net[4]):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
        nn.init.uniform_(norm.weight)
        nn.init.uniform_(norm.bias)
    return net


def statistics(x: torch.Tensor) -> tuple[list[float], list[float]]:
    """Mean and unbiased variance of each channel in a naive loop."""
    means, variances = [], []
    for c in range(x.shape[1]):
        values = [float(v) for v in x[:, c].flatten()]
        mean = sum(values) / len(values)
        means.append(mean)
        variances.append(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return means, variances


@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.parametrize("sizes", [[7], [4, 2, 3]])
def test_batch_norm_statistics_equal_a_naive_loop_over_batches(share: float, sizes: list[int]) -> None:
    net = tiny_net()
    plain, batches = copy.deepcopy(net), [torch.randn(n, 3, 8, 8).double() for n in sizes]
    adapt_batch_norms(net, batches, share)
    totals: dict[int, list[list[float]]] = {1: [], 4: []}
    for batch in batches:
        x = batch
        for i, layer in enumerate(plain):
            if i in totals:
                means, variances = statistics(x.detach())
                totals[i].append([*means, *variances])
                biased = x.var(dim=(0, 2, 3), unbiased=False)
                x = (x - x.mean(dim=(0, 2, 3))[:, None, None]) / (biased + layer.eps).sqrt()[:, None, None]
                x = x * layer.weight[:, None, None] + layer.bias[:, None, None]
            else:
                x = layer(x)
    for i, rows in totals.items():
        before = [*plain[i].running_mean.tolist(), *plain[i].running_var.tolist()]
        after = [*net[i].running_mean.tolist(), *net[i].running_var.tolist()]
        for k, value in enumerate(after):
            new = sum(n * row[k] for n, row in zip(sizes, rows, strict=True)) / sum(sizes)
            assert value == pytest.approx(share * new + (1 - share) * before[k], abs=1e-9)
        assert not net[i].training


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_last_layer_norm_subtracts_the_mean_feature(share: float) -> None:
    visual = make_clip(vit=True).visual.requires_grad_(False)
    batches = [torch.randn(n, 3, 32, 32) for n in (4, 2)]
    features = [visual(image[None])[0] for batch in batches for image in batch]
    mean = sum(features) / len(features)
    centre_last_norm(visual, batches, share)
    for image, feature in zip(torch.cat(batches), features, strict=True):
        torch.testing.assert_close(visual(image[None])[0], feature - share * mean, atol=1e-4, rtol=1e-4)


def make_zero_shot(kind: Any, *args: Any, vit: bool = True, test_batch_size: int = 7) -> Any:
    images = ToyImages(test_batch_size=test_batch_size, size=32)
    clip = make_clip_backbone(vit, ["a photo of a {}.", "a drawing of a {}."])
    return make_method(kind, *args, images=images, backbone=clip)


def make_norms(vit: bool, share: float = 0.25, **options: Any) -> Any:
    return make_zero_shot(NormAdaptation, NormAdaptationSettings(share), vit=vit, **options)


def test_zero_shot_is_a_cosine_classifier() -> None:
    norms = make_norms(True)
    clip, pixels, text = norms.engine.clip, norms.engine.images.pixels, norms.engine.clip.zero_shot_text()
    plain = make_zero_shot(ZeroShot, clip.visual, text)
    features = F.normalize(clip.clip_model.encode_image(pixels), dim=-1)
    torch.testing.assert_close(plain.engine.predict(pixels), clip.scale * features @ text.t())
    assert torch.equal(norms.engine.predict(pixels), plain.engine.predict(pixels))  # before adaptation
    assert (plain.epochs, plain.models, plain.ensemble_size) == (0, {}, 1)


@pytest.mark.parametrize("vit", [False, True])
def test_only_norms_change_and_are_saved(vit: bool) -> None:
    method = make_norms(vit)
    visual = method.engine.clip.visual
    before = {key: value.clone() for key, value in visual.state_dict().items()}
    train(method)
    assert_same_bits(before, visual.state_dict())
    changed = {key for key, value in method.adapted.state_dict().items() if not torch.equal(value, before[key])}
    if vit:
        assert changed == {"ln_post.bias"}
    else:
        assert changed and all(key.split(".")[-1].startswith(("running_", "num_batches")) for key in changed)
    loaded = make_norms(vit)
    load(loaded, checkpoint_of(method))
    assert_same_bits(weights(method), weights(loaded))
    pixels = method.engine.images.pixels
    assert torch.equal(method.engine.predict(pixels), loaded.engine.predict(pixels))


def test_norms_are_adapted_to_the_unlabeled_images() -> None:
    """With all images in one batch, features equal those of an encoder in training mode."""
    method = make_norms(False, share=1.0, test_batch_size=100)
    clip, pixels = method.engine.clip, method.engine.images.pixels
    zero_shot = method.engine.predict(pixels)
    method.engine.begin()
    with torch.no_grad():
        expected = F.normalize(copy.deepcopy(clip.visual).train()(pixels), dim=-1)
    logits = clip.scale * expected @ method.text.t()
    adapted = method.engine.predict(pixels)
    assert (adapted - logits).abs().mean() < 0.1 * (zero_shot - logits).abs().mean()  # variances are unbiased
