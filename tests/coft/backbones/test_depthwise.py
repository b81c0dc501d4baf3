"""Depthwise convolutions and their gradients against the plain ones."""

import copy

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import nn

from coft.backbones.depthwise import DepthwiseConv2d, input_gradient, use_fast_kernels, weight_gradient

SHAPES = [  # kernel, stride, padding
    *[(3, 1, 1), (5, 1, 2), (7, 1, 3), (3, 2, 1), (5, 2, 2), (5, 2, 0), (4, 3, 1), (2, 2, 0)],
]


@pytest.mark.parametrize(("kernel", "stride", "padding"), SHAPES)
def test_gradients_equal_those_of_the_plain_convolution(kernel: int, stride: int, padding: int) -> None:
    images = torch.randn(2, 6, 11, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
    outputs = F.conv2d(images, weight, None, stride, padding, groups=6)
    gradient = torch.randn_like(outputs)
    expected_image_gradient, expected_weight_gradient = torch.autograd.grad(outputs, (images, weight), gradient)
    fast = input_gradient(gradient, weight.detach(), images.shape[-2:], stride, padding)
    torch.testing.assert_close(fast, expected_image_gradient, rtol=1e-12, atol=1e-12)
    fast = weight_gradient(gradient, images.detach(), kernel, stride, padding)
    torch.testing.assert_close(fast, expected_weight_gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", [nn.Conv2d, Conv2dSame])
def test_outputs_in_bf16_differ_by_rounding_only(kind: type[nn.Conv2d], stride: int) -> None:
    plain = kind(6, 6, 5, stride, 2 if kind is nn.Conv2d else 0, groups=6, bias=False)
    fast = copy.deepcopy(plain)
    use_fast_kernels(fast)
    assert type(fast) is DepthwiseConv2d and fast.state_dict().keys() == plain.state_dict().keys()
    images = torch.randn(2, 6, 12, 9)
    results = []
    for conv, bf16 in ((plain, False), (fast, False), (fast, True)):
        leaf = images.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            outputs = conv(leaf)
        assert outputs.dtype is (torch.bfloat16 if bf16 else torch.float32)
        loss = outputs.float().square().sum()
        results.append([outputs.float(), *torch.autograd.grad(loss, (leaf, conv.weight))])
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)
    for rounded, exact in zip(results[2], results[0], strict=True):
        assert (rounded - exact).norm() <= 0.02 * exact.norm()


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(6, 6, 3, groups=6),  # has a bias
        nn.Conv2d(6, 6, 3, groups=3, bias=False),
        nn.Conv2d(6, 12, 3, groups=6, bias=False),
        nn.Conv2d(6, 6, (3, 5), groups=6, bias=False),
        nn.Conv2d(6, 6, 3, groups=6, bias=False, dilation=2),
        nn.Conv2d(6, 6, 3, groups=6, bias=False, padding="same"),
        nn.Conv2d(6, 6, 3, groups=6, bias=False, padding=1, padding_mode="reflect"),
        nn.Conv2d(6, 6, 2, groups=6, bias=False, padding=2),  # too much padding
    ],
)
def test_unsupported_convolutions_are_not_replaced(conv: nn.Conv2d) -> None:
    use_fast_kernels(conv)
    assert type(conv) is nn.Conv2d
