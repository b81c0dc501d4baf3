"""Faster layouts of an image encoder, with the same weights and, up to rounding, the same results."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.backbones.architecture import is_convolutional
from coft.backbones.joint import members_of
from coft.backbones.normed_convolution import fold_norms


def optimize_layout(visual: Any, size: int) -> None:
    """Convert an image encoder to its faster layout, in place.

    CNNs get channels-last memory format, faster depthwise convolutions, and convolutions that apply their batch norms.
    Vision transformers embed their patches by a matrix product.

    Args:
        visual: Image encoder of a CLIP, in evaluation mode.
        size: Height and width of the images that it takes.
    """
    for member in members_of(visual):
        if is_convolutional(member):
            member.to(memory_format=torch.channels_last)
            fold_norms(member, size)
            continue
        for module in [module for module in member.modules() if type(module) is nn.Conv2d]:
            if _is_patch_embedding(module):
                module.__class__ = PatchProduct  # weights, hooks and names stay


def _is_patch_embedding(conv: nn.Conv2d) -> bool:
    steps = (conv.stride, conv.padding, conv.dilation, conv.groups)
    return steps == (conv.kernel_size, (0, 0), (1, 1), 1)


class PatchProduct(nn.Conv2d):
    """Convolution with non-overlapping patches, computed as one matrix product.

    On a CPU, the gradient of a convolution with large patches takes far longer in bf16.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Embed patches. Shape (n, in, height, width) to (n, out, height / patch, width / patch)."""
        n, channels, height, width = input.shape
        (tall, wide), down, right = self.kernel_size, height // self.kernel_size[0], width // self.kernel_size[1]
        whole = input[:, :, : down * tall, : right * wide]
        patches = whole.reshape(n, channels, down, tall, right, wide).permute(0, 2, 4, 1, 3, 5)
        rows = F.linear(patches.reshape(n, down * right, -1), self.weight.flatten(1), self.bias)
        return rows.transpose(1, 2).reshape(n, -1, down, right)
