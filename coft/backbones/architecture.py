"""Kinds of image encoders: what each can do, by its modules."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from torch import nn

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
STRIDE = 32  # of all CNNs here: pixels that become one
SMALLEST = 2 * STRIDE


@dataclass(frozen=True)
class Architecture:
    """What the rest of the program needs to know of a backbone before its weights are read.

    Attributes:
        resolution: Side of the square input, in pixels.
        is_vit: Whether the image encoder is a vision transformer that prompts can be put into.
        any_size: Whether it reads other squares, too: a CNN whose features are means over all places.
        mean: Of each channel of its images, for normalisation.
        std: Likewise.
        interpolation: How its images were resized: bicubic, bilinear or nearest.
        depthwise: Whether it has depthwise convolutions.
        frozen_stages: How many of its first stages never train, if nobody says otherwise.
    """

    resolution: int
    is_vit: bool
    any_size: bool = False
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    interpolation: str = "bicubic"
    depthwise: bool = False
    frozen_stages: int = 0

    def reads(self, size: tuple[int, ...]) -> bool:
        """Whether it reads images of this height and width."""
        free = self.any_size and len(set(size)) == 1 and size[0] >= SMALLEST and size[0] % STRIDE == 0
        return free or size == (self.resolution,) * 2

    @property
    def sizes(self) -> str:
        """Which sizes it reads, in words."""
        own = f"{(self.resolution,) * 2}"
        return f"{own} or another square, a multiple of {STRIDE} from {SMALLEST} on" if self.any_size else own


def timm_vit(visual: Any) -> Any:
    """The vision transformer inside open_clip's adapter of timm models; None where there is another, or none."""
    trunk = getattr(visual, "trunk", None)
    kinds = (("vision_transformer", "VisionTransformer"), ("eva", "Eva"))
    known = [getattr(sys.modules.get(f"timm.models.{module}"), name, None) for module, name in kinds]
    return trunk if trunk is not None and type(trunk) in known else None


def is_vit(visual: Any) -> bool:
    """Whether an image encoder is a vision transformer that prompts can be put into."""
    return hasattr(visual, "transformer") or timm_vit(visual) is not None


def is_convolutional(visual: nn.Module) -> bool:
    """Whether an image encoder has convolutions beside the one that makes patches."""
    return sum(isinstance(module, nn.Conv2d) for module in visual.modules()) > 1


def is_depthwise(visual: nn.Module) -> bool:
    """Whether an image encoder has convolutions of each channel on its own."""
    return any(isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels for module in visual.modules())


def has_attention(visual: nn.Module) -> bool:
    """Whether an image encoder has attention anywhere."""
    return any(hasattr(module, "num_heads") for module in visual.modules())


def reads_any_size(visual: nn.Module) -> bool:
    """Whether an image encoder is a CNN whose features are means over all places."""
    is_timms = hasattr(visual, "trunk") and not hasattr(visual.head, "pool")
    return is_timms and is_convolutional(visual) and not has_attention(visual)
