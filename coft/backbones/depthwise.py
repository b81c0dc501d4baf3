"""Depthwise convolutions whose backward pass is fast in bf16 on a CPU."""

from __future__ import annotations

import sys
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 3  # kernel side for which oneDNN has a fast weight gradient


class DepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution with a square kernel, stride and padding, and without bias.

    In bf16 on a CPU, PyTorch's gradients take up to a hundred times as long as the convolution (docs/performance.md).
    Here both gradients are expressed as convolutions that run fast.

    Attributes:
        pads_as_tensorflow: Whether inputs are padded as TensorFlow's "same" does (`pad_same`), instead of by `padding`.
    """

    pads_as_tensorflow: bool

    def forward(self, input: Tensor) -> Tensor:
        """Convolve. Shape (n, channels, height, width) to (n, channels, height', width')."""
        weight, padding = self.weight, self.padding
        if self.pads_as_tensorflow:
            input, padding = pad_same(input, self.kernel_size[0], self.stride[0]), (0, 0)
        if torch.is_autocast_enabled(input.device.type):
            dtype = torch.get_autocast_dtype(input.device.type)
            input, weight = input.to(dtype), weight.to(dtype)
        if input.dtype is not torch.bfloat16 or input.device.type != "cpu":
            return F.conv2d(input, weight, None, self.stride, padding, groups=self.groups)
        return _Depthwise.apply(input, weight, self.stride[0], int(padding[0]))


def use_fast_kernels(conv: nn.Conv2d) -> None:
    """Turn a convolution into a `DepthwiseConv2d` in place, if it computes the same. Weights, hooks and names stay."""
    conv2d_same = getattr(sys.modules.get("timm.layers"), "Conv2dSame", None)  # None if timm is not imported
    if type(conv) not in (nn.Conv2d, conv2d_same):
        return
    pairs = conv.kernel_size, conv.stride, conv.padding
    square = all(isinstance(pair, tuple) and pair[0] == pair[1] for pair in pairs)
    plain = conv.dilation == (1, 1) and conv.padding_mode == "zeros" and conv.bias is None
    if not (square and plain and int(conv.padding[0]) < conv.kernel_size[0]):
        return
    if 1 < conv.groups == conv.in_channels == conv.out_channels:
        pads_as_tensorflow = type(conv) is conv2d_same
        conv.__class__ = DepthwiseConv2d
        cast(DepthwiseConv2d, conv).pads_as_tensorflow = pads_as_tensorflow


def pad_same(images: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad as TensorFlow's "same": outputs have ceil(side / stride) pixels; an odd pixel goes to the right or bottom."""
    pads = list[int]()
    for side in (images.shape[-1], images.shape[-2]):
        total = max(0, (-(-side // stride) - 1) * stride + kernel - side)
        pads += [total // 2, total - total // 2]
    return F.pad(images, pads)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(input, weight, None, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (gradient,), (input, weight) = gradients, ctx.saved_tensors
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:
            of_input = input_gradient(gradient, weight, input.shape[-2:], ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(gradient, input, weight.shape[-1], ctx.stride, ctx.padding)
        return of_input, of_weight, None, None


def input_gradient(gradient: Tensor, weight: Tensor, size: torch.Size, stride: int, padding: int) -> Tensor:
    """Compute the gradient of a depthwise convolution with respect to its input, by convolving with the flipped kernel.

    Args:
        gradient: Gradient with respect to the output. Shape (n, channels, height', width').
        weight: Weight. Shape (channels, 1, kernel, kernel).
        size: Height and width of the input.
        stride: Stride of the convolution.
        padding: Padding of the convolution.
    """
    kernel = weight.shape[-1]
    if stride > 1:
        apart = [side + 2 * padding - kernel + 1 for side in size]
        spread = gradient.new_zeros(*gradient.shape[:2], *apart).to(memory_format=torch.channels_last)
        spread[:, :, ::stride, ::stride] = gradient
        gradient = spread
    return F.conv2d(gradient, weight.flip(2, 3), None, 1, kernel - 1 - padding, groups=len(weight))


def weight_gradient(gradient: Tensor, input: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Compute the gradient of a depthwise convolution with respect to its weight, in 3 x 3 blocks of the kernel.

    Args:
        gradient: Gradient with respect to the output. Shape (n, channels, height', width').
        input: Input of the convolution. Shape (n, channels, height, width).
        kernel: Side of the kernel.
        stride: Stride of the convolution.
        padding: Padding of the convolution.

    Returns:
        Gradient. Shape (channels, 1, kernel, kernel).
    """
    channels, whole = input.shape[1], -(-kernel // BLOCK) * BLOCK
    padded = F.pad(input, [padding, padding + whole - kernel] * 2)
    tall, wide = ((side - 1) * stride + BLOCK for side in gradient.shape[-2:])
    block, result = input.new_empty(channels, 1, BLOCK, BLOCK), input.new_empty(channels, 1, whole, whole)
    for row in range(0, whole, BLOCK):
        for column in range(0, whole, BLOCK):
            part = padded[:, :, row : row + tall, column : column + wide].contiguous(memory_format=torch.channels_last)
            options = ([stride] * 2, [0, 0], [1, 1], False, [0, 0], channels, [False, True, False])
            of_block = torch.ops.aten.convolution_backward(gradient, part, block, [0], *options)[1]
            result[:, :, row : row + BLOCK, column : column + BLOCK] = of_block
    return result[:, :, :kernel, :kernel]
