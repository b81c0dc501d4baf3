"""Convolutions whose backward pass is fast on a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

WIDTH = 3  # of the widest kernel for which oneDNN has a fast weight gradient; its height does not matter


def convolve(input: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """Convolve with a square kernel, which reads all input channels or, if it has one alone, that of its output.

    On a CPU, PyTorch's gradients of depthwise convolutions take up to a hundred times as long as the convolution, and
    that of a bias longer than a sum (docs/performance.md). Here they are expressed by operations that run fast.

    Args:
        input: Shape (n, in channels, height, width).
        weight: Shape (channels, in channels or 1, kernel, kernel).
        bias: Shape (channels,), or None.
        stride: Stride.
        padding: Zeros on each side.

    Returns:
        Shape (n, channels, height', width').
    """
    if input.device.type != "cpu" or not torch.is_grad_enabled():
        return F.conv2d(input, weight, bias, stride, padding, groups=input.shape[1] // weight.shape[1])
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        input, weight = input.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    output: Tensor = _Convolution.apply(input, weight, bias, stride, padding)
    return output


def pad_same(images: Tensor, weight: Tensor, stride: int) -> tuple[Tensor, Tensor, int]:
    """Pad as TensorFlow's "same": outputs have ceil(side / stride) pixels; an odd pixel goes to the right or bottom.

    Padding of images takes several times as long as a depthwise convolution. So for an odd pixel, the kernel gets a row
    and a column of zeros at the top and at the left.

    Args:
        images: Shape (n, in channels, height, width).
        weight: Shape (channels, in channels or 1, kernel, kernel).
        stride: Stride of the convolution.

    Returns:
        Images and weight, either of them padded, and the zeros on each side that a convolution has to add.
    """
    kernel = weight.shape[-1]
    sides = images.shape[-1], images.shape[-2]
    totals = [max(0, (-(-side // stride) - 1) * stride + kernel - side) for side in sides]
    before, after = totals[0] // 2, totals[0] - totals[0] // 2
    if totals[0] == totals[1] and before == after:
        return images, weight, before
    if totals[0] == totals[1] and weight.shape[1] == 1:
        return images, F.pad(weight, (1, 0, 1, 0)), after
    pads = [pad for total in totals for pad in (total // 2, total - total // 2)]
    return F.pad(images, pads), weight, 0


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(input, weight, bias, stride, padding, groups=input.shape[1] // weight.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        (gradient,), (input, weight), (stride, padding) = gradients, ctx.saved_tensors, (ctx.stride, ctx.padding)
        groups, (needs_input, needs_weight, needs_bias) = input.shape[1] // weight.shape[1], ctx.needs_input_grad[:3]
        slow_weight = groups > 1
        slow_input = groups > 1 and (stride == 1 or input.dtype is torch.bfloat16)
        mask = [needs_input and not slow_input, needs_weight and not slow_weight, False]
        options = (None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups, mask)
        of_input, of_weight, _ = torch.ops.aten.convolution_backward(gradient, input, weight, *options)
        if needs_input and slow_input:
            of_input = input_gradient(gradient, weight, input.shape[-2:], stride, padding)
        if needs_weight and slow_weight:
            of_weight = weight_gradient(gradient, input, weight.shape[-1], stride, padding)
        return of_input, of_weight, gradient.sum(dim=(0, 2, 3)) if needs_bias else None, None, None


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
    """Compute the gradient of a depthwise convolution with respect to its weight, in narrow columns of the kernel.

    Args:
        gradient: Gradient with respect to the output. Shape (n, channels, height', width').
        input: Input of the convolution. Shape (n, channels, height, width).
        kernel: Side of the kernel.
        stride: Stride of the convolution.
        padding: Padding of the convolution.

    Returns:
        Gradient. Shape (channels, 1, kernel, kernel).
    """
    channels, count = input.shape[1], -(-kernel // WIDTH)
    widths = [(kernel + number) // count for number in range(count)]  # about equal: below the stride, it is slow
    tall, wide = ((side - 1) * stride for side in gradient.shape[-2:])  # from the first output to the last
    if max(padding - wide - widths[0], kernel - padding - widths[-1] - input.shape[-1]) > 0:
        widths, count = [kernel], 1  # a column would lie outside of the input
    if count > 1:  # otherwise the convolution pads by itself
        starts = [sum(widths[:number]) - padding for number in range(count)]
        below, right = tall + kernel - padding - input.shape[-2], wide - input.shape[-1]
        inputs = [
            F.pad(input, (-start, right + start + width, padding, below))
            for start, width in zip(starts, widths, strict=True)
        ]
        padding = 0
    else:
        inputs = [input]
    options = (None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], channels, [False, True, False])
    blocks = [
        torch.ops.aten.convolution_backward(gradient, seen, input.new_empty(channels, 1, kernel, width), *options)[1]
        for seen, width in zip(inputs, widths, strict=True)
    ]
    return torch.cat(blocks, dim=-1)
