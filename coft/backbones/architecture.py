"""Kinds of image encoders, and what each of them can do."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from coft.core.errors import UserError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
STRIDE = 32  # total stride of the CNNs here
SMALLEST = 2 * STRIDE  # pixels of the smallest input of a CNN
LIGHT = 20_000_000  # weights of an image encoder; an RN50 has 38 million


@dataclass(frozen=True)
class Architecture:
    """Properties of a backbone that are known before its weights are read.

    Attributes:
        resolution: Side of the square input, in pixels.
        is_vit: Whether the image encoder is a vision transformer that takes visual prompts.
        any_size: Whether it reads squares of other sizes, too: a CNN with global average pooling.
        mean: Mean of each channel of its images, for normalization.
        std: Standard deviation of each channel of its images, for normalization.
        interpolation: How its images were resized: "bicubic", "bilinear" or "nearest".
        frozen_stages: Default number of its first stages that do not train.
        light: Whether it is a CNN of fewer than `LIGHT` weights, which a CPU trains in minutes.
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
        """Whether it reads images of this size: (height, width) in pixels."""
        is_other_square = self.any_size and len(set(size)) == 1 and size[0] >= SMALLEST and size[0] % STRIDE == 0
        return is_other_square or size == (self.resolution,) * 2

    @property
    def sizes(self) -> str:
        """The sizes that it reads, as text."""
        square = f"{(self.resolution,) * 2}"
        return f"{square} or another square, a multiple of {STRIDE} from {SMALLEST} on" if self.any_size else square


def common_architecture(name: str, members: Sequence[Architecture]) -> Architecture:
    """How two backbones read images that are theirs together.

    Raises:
        UserError: If they do not read the same images.
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
    """The vision transformer inside open_clip's adapter of timm models; None if there is no such model."""
    trunk = getattr(visual, "trunk", None)
    class_names = (("vision_transformer", "VisionTransformer"), ("eva", "Eva"))
    vit_classes = [getattr(sys.modules.get(f"timm.models.{module}"), name, None) for module, name in class_names]
    return trunk if trunk is not None and type(trunk) in vit_classes else None


def is_vit(visual: Any) -> bool:
    """Whether an image encoder is a vision transformer that takes visual prompts."""
    return hasattr(visual, "transformer") or timm_vit(visual) is not None


def is_convolutional(visual: nn.Module) -> bool:
    """Whether an image encoder has more than one convolution. A vision transformer has one, for its patches."""
    return sum(isinstance(module, nn.Conv2d) for module in visual.modules()) > 1


def is_light(visual: nn.Module) -> bool:
    """Whether an image encoder is a CNN of fewer than `LIGHT` weights."""
    return is_convolutional(visual) and sum(weight.numel() for weight in visual.parameters()) < LIGHT


def has_attention(visual: nn.Module) -> bool:
    """Whether an image encoder has attention anywhere."""
    return any(hasattr(module, "num_heads") for module in visual.modules())


def reads_any_size(visual: nn.Module) -> bool:
    """Whether an image encoder is a CNN with global average pooling, which reads images of any size."""
    is_timm = hasattr(visual, "trunk") and not hasattr(visual.head, "pool")
    return is_timm and is_convolutional(visual) and not has_attention(visual)
