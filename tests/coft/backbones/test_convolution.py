"""Convolutions and their gradients against the plain ones."""

import pytest
import torch
import torch.nn.functional as F
from timm.layers.padding import pad_same as timms_padding
from torch import Tensor

from coft.backbones.convolution import convolve, input_gradient, pad_same, weight_gradient

SHAPES = [  # kernel, stride, padding
    *[(1, 1, 0), (3, 1, 1), (5, 1, 2), (7, 1, 3), (3, 2, 1), (5, 2, 2), (5, 2, 0), (4, 3, 1), (2, 2, 0), (6, 2, 2)],
]


def of(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(("kernel", "stride", "padding"), SHAPES)
def test_gradients_of_depthwise_convolutions_equal_pytorchs(kernel: int, stride: int, padding: int) -> None:
    images, weight = of(2, 6, 11, 8), of(6, 1, kernel, kernel)
    outputs = F.conv2d(images, weight, None, stride, padding, groups=6)
    gradient = torch.randn_like(outputs)
    expected = torch.autograd.grad(outputs, (images, weight), gradient)
    fast = input_gradient(gradient, weight.detach(), images.shape[-2:], stride, padding)
    torch.testing.assert_close(fast, expected[0], rtol=1e-12, atol=1e-12)
    fast = weight_gradient(gradient, images.detach(), kernel, stride, padding)
    torch.testing.assert_close(fast, expected[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(7, 1, 3), (7, 2, 3), (9, 1, 2), (11, 1, 5)])
@pytest.mark.parametrize("width", [1, 2, 5, 6])
def test_kernels_may_be_wider_than_the_image(kernel: int, stride: int, padding: int, width: int) -> None:
    if width + 2 * padding < kernel:
        return
    images, weight = of(2, 3, 12, width), of(3, 1, kernel, kernel)
    outputs = F.conv2d(images, weight, None, stride, padding, groups=3)
    gradient = torch.randn_like(outputs)
    (expected,) = torch.autograd.grad(outputs, weight, gradient)
    fast = weight_gradient(gradient, images.detach(), kernel, stride, padding)
    torch.testing.assert_close(fast, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("trained", ["all", "input", "weight", "bias"])
@pytest.mark.parametrize("groups", [1, 6])
def test_a_convolution_equals_pytorchs(groups: int, trained: str) -> None:
    tensors = {"input": of(2, 6, 9, 7), "weight": of(6, 6 // groups, 5, 5), "bias": of(6)}
    for name, tensor in tensors.items():
        tensor.requires_grad_(trained in ("all", name))
    leaves = [tensor for tensor in tensors.values() if tensor.requires_grad]
    results = []
    for outputs in (convolve(*tensors.values(), 2, 2), F.conv2d(*tensors.values(), 2, 2, groups=groups)):
        results.append([outputs, *torch.autograd.grad(outputs.square().sum(), leaves)])
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_in_bf16_differs_by_rounding_only(stride: int, groups: int) -> None:
    leaves = [of(2, 6, 12, 9), of(6, 6 // groups, 5, 5), of(6)]
    results = []
    for dtype in (torch.float64, torch.bfloat16):
        inputs = [leaf.detach().to(torch.float32 if dtype is torch.bfloat16 else dtype) for leaf in leaves]
        for each in inputs:
            each.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            outputs = convolve(*inputs, stride, 2)
        assert outputs.dtype is dtype
        results.append([outputs, *torch.autograd.grad(outputs.double().square().sum(), inputs)])
    for exact, rounded in zip(*results, strict=True):
        assert (rounded - exact).norm() <= 0.02 * exact.norm()


@pytest.mark.parametrize("shape", [(8, 8), (7, 7), (8, 7), (5, 6), (2, 2)])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
@pytest.mark.parametrize("groups", [1, 4])
def test_same_padding_equals_timms(shape: tuple[int, int], stride: int, kernel: int, groups: int) -> None:
    images, weight = of(2, 4, *shape), of(4, 4 // groups, kernel, kernel)
    padded = timms_padding(images, [kernel, kernel], [stride, stride])
    expected = F.conv2d(padded, weight, None, stride, groups=groups)
    ours, kernels, padding = pad_same(images, weight, stride)
    torch.testing.assert_close(convolve(ours, kernels, None, stride, padding), expected, rtol=1e-12, atol=1e-12)
