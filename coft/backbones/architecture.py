"""Properties of image encoders: input size and normalization, vision transformer or CNN, support of other sizes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from coft.core.errors import UserError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
STRIDE = 32  # total stride of the supported CNNs
MIN_INPUT_SIDE = 2 * STRIDE  # smallest side of a CNN's input, in pixels
LIGHT = 20_000_000  # upper bound of the weights of a light image encoder; an RN50 has 38 million


@dataclass(frozen=True)
class Architecture:
    """Properties of a backbone that are known before its weights are read.

    Attributes:
        resolution: Side of the square input, in pixels.
        is_vit: Whether the image encoder is a vision transformer that supports visual prompts.
        any_size: Whether square inputs of other sizes are supported, as by a CNN with global average pooling.
        mean: Mean of each channel, for normalization.
        std: Standard deviation of each channel, for normalization.
        interpolation: Interpolation for resizing: "bicubic", "bilinear" or "nearest".
        frozen_stages: Default number of first stages that stay frozen.
        light: Whether the image encoder is a CNN of fewer than `LIGHT` weights, which a CPU trains in minutes.
    """

    resolution: int
    is_vit: bool
    any_size: bool = False
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    interpolation: str = "bicubic"
    frozen_stages: int = 0
    light: bool = False

    def reads(self, size: tuple[int, ...]) -> bool:
        """Return whether images of this size, (height, width) in pixels, are supported."""
        is_other_square = self.any_size and len(set(size)) == 1 and size[0] >= MIN_INPUT_SIDE and size[0] % STRIDE == 0
        return is_other_square or size == (self.resolution,) * 2

    @property
    def sizes(self) -> str:
        """Supported input sizes as text, for messages."""
        square = f"{(self.resolution,) * 2}"
        return (
            f"{square} or another square, a multiple of {STRIDE} from {MIN_INPUT_SIDE} on" if self.any_size else square
        )


def common_architecture(name: str, members: Sequence[Architecture]) -> Architecture:
    """Combine the architectures of two backbones that share their input images.

    Raises:
        UserError: If resolution, mean, std or interpolation differ.
    """
    first = members[0]
    for attribute in ("resolution", "mean", "std", "interpolation"):
        values = [getattr(member, attribute) for member in members]
        if len(set(values)) > 1:
            raise UserError(
                f"backbone {name}: they read different images ({attribute} {values[0]} and {values[1]}); "
                "take two of one family"
            )
    return replace(
        first,
        is_vit=all(member.is_vit for member in members),
        any_size=all(member.any_size for member in members),
        frozen_stages=min(member.frozen_stages for member in members),
    )


def timm_vit(visual: Any) -> Any:
    """Return the vision transformer inside open_clip's adapter of timm models; None for other encoders."""
    trunk = getattr(visual, "trunk", None)
    class_names = (("vision_transformer", "VisionTransformer"), ("eva", "Eva"))
    vit_classes = [getattr(sys.modules.get(f"timm.models.{module}"), name, None) for module, name in class_names]
    return trunk if trunk is not None and type(trunk) in vit_classes else None


def is_vit(visual: Any) -> bool:
    """Return whether an image encoder is a vision transformer that supports visual prompts."""
    return hasattr(visual, "transformer") or timm_vit(visual) is not None


def is_convolutional(visual: nn.Module) -> bool:
    """Return whether an image encoder has more than one convolution. A ViT has one, for its patches."""
    return sum(isinstance(module, nn.Conv2d) for module in visual.modules()) > 1


def is_light(visual: nn.Module) -> bool:
    """Return whether an image encoder is a CNN of fewer than `LIGHT` weights."""
    return is_convolutional(visual) and sum(weight.numel() for weight in visual.parameters()) < LIGHT


def has_attention(visual: nn.Module) -> bool:
    """Return whether any module of an image encoder is an attention layer."""
    return any(hasattr(module, "num_heads") for module in visual.modules())


def reads_any_size(visual: nn.Module) -> bool:
    """Return whether an image encoder is a timm CNN with global average pooling, which reads images of any size."""
    is_timm = hasattr(visual, "trunk") and not hasattr(visual.head, "pool")
    return is_timm and is_convolutional(visual) and not has_attention(visual)
