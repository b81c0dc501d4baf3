"""Convolutions that apply their batch norms against encoders where the norms run by themselves."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from coft.backbones.normed_convolution import NormedConv2d, fold_norms, separate_norms
from coft.backbones.visual_tuning import light_module
from coft.method.peer import trainable_copy
from tests.conftest import make_clip

SIZE = 64
PHASES: dict[str, Callable[[Any], nn.Module]] = {
    "all": trainable_copy,
    "norms": lambda visual: light_module(visual, "norms-and-biases", torch.Generator().manual_seed(0)),
    "lora": lambda visual: light_module(visual, "lora", torch.Generator().manual_seed(0)),
}


def encoder(name: str) -> Any:
    """An encoder in float64, with batch norms that change what they are given."""
    torch.manual_seed(0)
    visual = make_clip(vit=False).visual if name == "resnet" else timm.create_model(name)
    for norm in visual.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return visual.eval().requires_grad_(False).double()


def images(visual: Any) -> Tensor:
    side = getattr(visual, "input_resolution", SIZE)
    return torch.randn(2, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def results(visual: nn.Module, batch: Tensor) -> list[Tensor]:
    """Features and gradients of all weights that train."""
    features = visual(batch)
    weights = [weight for weight in visual.parameters() if weight.requires_grad]
    return [features, *torch.autograd.grad(features.square().sum(), weights)]


def folded(visual: Any) -> Any:
    twin = copy.deepcopy(visual)
    fold_norms(twin, images(visual).shape[-1])
    return twin


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", ["resnet", "test_efficientnet", "tf_mobilenetv3_small_minimal_100"])
def test_features_and_gradients_stay(name: str, phase: str) -> None:
    plain = encoder(name)
    fast = folded(plain)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    assert sum(bool(m.norms) for m in fast.modules() if isinstance(m, NormedConv2d)) == norms
    assert fast.state_dict().keys() == plain.state_dict().keys()
    with torch.no_grad():
        torch.testing.assert_close(fast(images(plain)), plain(images(plain)), rtol=1e-9, atol=1e-9)
    expected, actual = (results(PHASES[phase](visual), images(plain)) for visual in (plain, fast))
    torch.testing.assert_close(actual, expected, rtol=1e-7, atol=1e-7)


def test_norms_are_separated_again() -> None:
    plain = encoder("tf_mobilenetv3_small_minimal_100")
    fast = separate_norms(folded(plain))
    assert [type(module) for module in fast.modules()] == [type(module) for module in plain.modules()]
    assert torch.equal(fast(images(plain)), plain(images(plain)))


def test_a_copy_has_norms_of_its_own() -> None:
    first = folded(encoder("test_efficientnet"))
    batch, second = images(first), copy.deepcopy(first)
    before = first(batch)
    for norm in second.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.weight.mul_(2)
    assert torch.equal(first(batch), before) and not torch.allclose(second(batch), before)


def test_a_norm_in_training_mode_takes_the_statistics_of_the_batch() -> None:
    plain = encoder("test_efficientnet")
    fast = folded(plain)
    for visual in (plain, fast):
        visual.train()
    torch.testing.assert_close(fast(images(plain)), plain(images(plain)), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(fast.state_dict(), plain.state_dict(), rtol=1e-9, atol=1e-9)


class ReadTwice(nn.Module):
    """The output of the convolution goes to the norm, and elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        nn.init.constant_(self.norm.weight, 2.0)
        nn.init.constant_(self.norm.bias, -1.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return torch.cat([x, self.norm(x)], dim=1)


class ActsInPlace(ReadTwice):
    """The norm takes an activation, which changed the output of the convolution in place."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x).relu_())


@pytest.mark.parametrize("kind", [ReadTwice, ActsInPlace])
def test_outputs_that_something_else_reads_stay(kind: type[nn.Module]) -> None:
    visual = kind().eval()
    expected = visual(images(visual).float())
    fold_norms(visual, SIZE)
    assert [type(child) for child in visual.children()] == [nn.Conv2d, nn.BatchNorm2d]
    assert torch.equal(visual(images(visual).float()), expected)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(6, 6, 3),  # has a bias
        nn.Conv2d(6, 6, 3, groups=3, bias=False),
        nn.Conv2d(6, 12, 3, groups=6, bias=False),
        nn.Conv2d(6, 6, (3, 5), bias=False),
        nn.Conv2d(6, 6, 3, bias=False, dilation=2),
        nn.Conv2d(6, 6, 3, bias=False, padding="same"),
        nn.Conv2d(6, 6, 3, bias=False, padding=1, padding_mode="reflect"),
        nn.Conv2d(6, 6, 2, bias=False, padding=2),  # too much padding
    ],
)
def test_unsupported_convolutions_are_not_replaced(conv: nn.Conv2d) -> None:
    visual = nn.Sequential(nn.Conv2d(3, 6, 1, bias=False), conv, nn.BatchNorm2d(conv.out_channels)).eval()
    fold_norms(visual, SIZE)
    assert type(conv) is nn.Conv2d and type(visual[2]) is nn.BatchNorm2d


def test_a_depthwise_convolution_without_a_norm_is_replaced_too() -> None:
    conv = Conv2dSame(6, 6, 3, stride=2, groups=6, bias=False)
    visual = nn.Sequential(nn.Conv2d(3, 6, 1), conv)
    expected = visual(images(visual).float())
    fold_norms(visual, SIZE)
    assert isinstance(conv, NormedConv2d)
    torch.testing.assert_close(visual(images(visual).float()), expected)
