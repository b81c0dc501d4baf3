"""Convolutions of a CNN that apply the batch norm after them, too."""

from __future__ import annotations

import sys
from typing import Any, cast

import torch
from torch import Tensor, nn

from coft.backbones.convolution import convolve, pad_same


class NormedConv2d(nn.Conv2d):
    """Convolution without bias, with the batch norm that follows it.

    With fixed statistics, a batch norm is a factor and a summand for each channel. They go into weight and bias, which
    saves a pass over the outputs. Where the norm trains and the weight does not, as in Phase I, the norm runs by
    itself: a gradient of the weight would cost more.

    Attributes:
        pads_as_tensorflow: Whether inputs are padded as TensorFlow's "same" does (`pad_same`), instead of by `padding`.
        norms: The batch norm, or none. It is in a tuple, so that this module does not own it.
        kinds: Former classes of the convolution, and of its batch norm.
    """

    pads_as_tensorflow: bool
    norms: tuple[nn.BatchNorm2d, ...]
    kinds: tuple[type[nn.Module], ...]

    def forward(self, input: Tensor) -> Tensor:
        """Convolve and normalise. Shape (n, in channels, height, width) to (n, channels, height', width')."""
        weight = self.weight
        if not self.norms:
            return self._convolve(input, weight, None)
        (norm,) = self.norms
        norm_alone_trains = torch.is_grad_enabled() and norm.weight.requires_grad and not weight.requires_grad
        if norm.training or norm_alone_trains:
            return nn.BatchNorm2d.forward(norm, self._convolve(input, weight, None))
        return self._convolve(input, *folded(weight, norm))

    def _convolve(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = int(self.padding[0])
        if self.pads_as_tensorflow:
            input, weight, padding = pad_same(input, weight, self.stride[0])
        return convolve(input, weight, bias, self.stride[0], padding)


def folded(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Fold a batch norm with fixed statistics into the convolution before it.

    Args:
        weight: Weight of the convolution. Shape (channels, ...).
        norm: The batch norm, with weight, bias and statistics.

    Returns:
        Weight and bias of a convolution with the same outputs. Shapes (channels, ...) and (channels,).
    """
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    return weight * scale.reshape(-1, *[1] * (weight.dim() - 1)), norm.bias - mean * scale


class _DoneByConvolution(nn.Module):
    """Batch norm that the convolution before it applies. Its activation, if it has one, remains."""

    def forward(self, x: Tensor) -> Tensor:
        for name in ("drop", "act"):  # of timm's `BatchNormAct2d`
            if hasattr(self, name):
                x = getattr(self, name)(x)
        return x


def fold_norms(visual: nn.Module, size: int) -> None:
    """Turn convolutions into `NormedConv2d` in place, where they compute the same. Weights, hooks and names stay.

    Args:
        visual: Image encoder of a CNN, in evaluation mode.
        size: Height and width of the images that it takes.
    """
    weight = next(visual.parameters())
    probe = torch.linspace(-1, 1, 3 * size**2, device=weight.device, dtype=weight.dtype).reshape(1, 3, size, size)
    features, norms = _norms_after(visual, probe)
    changed = {module: type(module) for module in visual.modules()}
    for conv in [module for module in visual.modules() if isinstance(module, nn.Conv2d)]:
        _convert(conv, norms.get(conv))
    with torch.no_grad():
        if not torch.allclose(visual(probe), features, rtol=1e-3, atol=1e-3 * float(features.abs().max())):
            for module, kind in changed.items():  # something else reads what comes between a convolution and its norm
                module.__class__ = kind


def separate_norms(visual: nn.Module) -> nn.Module:
    """Undo `fold_norms` in place, for exports: their tools know the separate layers. Returns the encoder."""
    for conv in [module for module in visual.modules() if isinstance(module, NormedConv2d)]:
        for module, kind in zip((conv, *conv.norms), conv.kinds, strict=True):
            module.__class__ = kind
    return visual


@torch.no_grad()
def _norms_after(visual: nn.Module, probe: Tensor) -> tuple[Tensor, dict[nn.Module, nn.BatchNorm2d]]:
    """Return the features of a probe, and the batch norms with fixed statistics that take a convolution's output."""
    outputs, norms = dict[int, tuple[nn.Module, Tensor]](), dict[nn.Module, nn.BatchNorm2d]()

    def after_convolution(conv: nn.Module, _: Any, output: Tensor) -> None:
        outputs[id(output)] = conv, output  # kept, so that its id stays its own

    def before_norm(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        if id(inputs[0]) in outputs and norm.affine and norm.track_running_stats:
            norms[outputs[id(inputs[0])][0]] = norm

    hooks = [m.register_forward_hook(after_convolution) for m in visual.modules() if isinstance(m, nn.Conv2d)]
    hooks += [m.register_forward_pre_hook(before_norm) for m in visual.modules() if isinstance(m, nn.BatchNorm2d)]
    features = visual(probe)
    for hook in hooks:
        hook.remove()
    return features, norms


def _convert(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> None:
    conv2d_same = getattr(sys.modules.get("timm.layers"), "Conv2dSame", None)  # None if timm is not imported
    depthwise = 1 < conv.groups == conv.in_channels == conv.out_channels
    if type(conv) not in (nn.Conv2d, conv2d_same) or not (depthwise or (norm is not None and conv.groups == 1)):
        return
    pairs = conv.kernel_size, conv.stride, conv.padding
    square = all(isinstance(pair, tuple) and pair[0] == pair[1] for pair in pairs)
    plain = conv.dilation == (1, 1) and conv.padding_mode == "zeros" and conv.bias is None
    if not (square and plain and int(conv.padding[0]) < conv.kernel_size[0]):
        return
    fast = cast(NormedConv2d, conv)
    fast.pads_as_tensorflow, fast.norms = type(conv) is conv2d_same, () if norm is None else (norm,)
    fast.kinds = tuple(type(module) for module in (conv, *fast.norms))
    conv.__class__ = NormedConv2d
    if norm is not None:
        norm.__class__ = type(f"Folded{type(norm).__name__}", (_DoneByConvolution, type(norm)), {})
