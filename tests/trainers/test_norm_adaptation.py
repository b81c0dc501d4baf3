"""NormAdaptation: statistics of the unlabeled images in the norms."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coft.backbones.prompts import ensemble_features
from coft.images.views import normalize, plain_view
from coft.runtime.errors import UserError
from tests.conftest import make_clip
from tests.trainers.conftest import assert_same_bits, weights
from trainers.norm_adaptation import adapt_batch_norms, centre_last_norm


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
    """Mean and unbiased variance of each channel, by loops."""
    means, variances = [], []
    for c in range(x.shape[1]):
        values = [float(v) for v in x[:, c].flatten()]
        mean = sum(values) / len(values)
        means.append(mean)
        variances.append(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return means, variances


@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.parametrize("sizes", [[7], [4, 2, 3]])
def test_batch_norms_get_statistics_averaged_over_batches(share: float, sizes: list[int]) -> None:
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


def test_without_a_share_nothing_changes() -> None:
    net = tiny_net()
    image = torch.randn(2, 3, 8, 8).double()
    before = net(image)
    adapt_batch_norms(net, [torch.randn(5, 3, 8, 8).double()], 0.0)
    assert torch.equal(net(image), before)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_last_layer_norm_takes_the_mean_feature_away(share: float) -> None:
    visual = make_clip(vit=True).visual.requires_grad_(False)
    batches = [torch.randn(n, 3, 32, 32) for n in (4, 2)]
    features = [visual(image[None])[0] for batch in batches for image in batch]
    mean = sum(features) / len(features)
    centre_last_norm(visual, batches, share)
    for image, feature in zip(torch.cat(batches), features, strict=True):
        torch.testing.assert_close(visual(image[None])[0], feature - share * mean, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backbone", ["resnet", "vit"])
def test_only_norms_change_and_a_checkpoint_evaluates(run: Callable[..., Any], backbone: str) -> None:
    built = run("NormAdaptation", backbone)
    changed = {
        name
        for name, value in built.visual.state_dict().items()
        if not torch.equal(value, built.clip_model.visual.state_dict()[name])
    }
    if backbone == "vit":
        assert changed == {"ln_post.bias"}
    else:
        assert changed and all(name.split(".")[-1].startswith(("running_", "num_batches")) for name in changed)
    again = run("NormAdaptation", backbone, train=False, out="again")
    again.load_model(built.output_dir)
    assert_same_bits(weights(built), weights(again))
    assert again.test() == pytest.approx(built.results["accuracy_test"])
    summary = json.loads((Path(built.output_dir) / "summary.json").read_text())
    assert (summary["ensemble"], summary["labels_used"]) == (1, 0)


def test_the_unlabeled_images_are_what_it_adapts_to(run: Callable[..., Any]) -> None:
    """In one batch of all of them, features are those of an encoder in training mode."""
    whole = {"TRAINER__NORMADAPTATION__SHARE": 1.0, "DATALOADER__TEST__BATCH_SIZE": 100}
    built = run("NormAdaptation", "resnet", **whole)
    view = plain_view(built.cfg)
    images = normalize(built.cfg)(torch.stack([view(built.pool.image(rank)) for rank in range(len(built.pool))]))
    with torch.no_grad():
        expected = F.normalize(copy.deepcopy(built.clip_model.visual).train()(images), dim=-1)
        text = ensemble_features(built.clip_model, built.classnames, built.templates)
        logits = built.clip_model.logit_scale.exp() * expected @ text.t()
        before = F.normalize(built.clip_model.visual(images), dim=-1)
        zero_shot = built.clip_model.logit_scale.exp() * before @ text.t()
    torch.testing.assert_close(built.model_inference(images), logits, atol=0.2, rtol=0.02)  # unbiased variances
    assert (built.model_inference(images) - zero_shot).abs().max() > 1


def test_a_share_is_from_0_to_1(run: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"TRAINER.NORMADAPTATION.SHARE is 1.5; expected a number from 0 to 1"):
        run("NormAdaptation", TRAINER__NORMADAPTATION__SHARE=1.5)
