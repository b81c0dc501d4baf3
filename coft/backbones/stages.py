"""First stages of an image encoder that never train: they see edges and textures, and cost half of a step."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from coft.backbones.architecture import has_attention
from coft.core.errors import UserError


def freeze_stages(visual: Any, stages: int) -> None:
    """Mark the first stages of a CNN of timm's as frozen, in every phase of every trainer.

    Stages are timm's: the stem counts as one, then each stage of blocks.

    Args:
        visual: CLIP's image encoder, which gets the attribute `stays_frozen`.
        stages: How many.

    Raises:
        UserError: If it has no such stages.
    """
    names = stage_names(visual) if stages else []
    if stages and stages >= len(names):
        has = f"has {len(names)} stages, of which the last must train" if names else "is no CNN of timm's"
        raise UserError(f"MODEL.BACKBONE.FROZEN_STAGES is {stages}, but the image encoder {has}; set a smaller number")
    visual.stays_frozen = frozenset(name for stage in names[:stages] for name in stage)


def hold_frozen_in_bf16(visual: nn.Module) -> None:
    """Run the convolutions of frozen stages in bf16 from now on, in steps as in predictions; others stay as they are.

    They need no gradients, and it is these that are slow in bf16. Copies of the encoder do the same.

    Args:
        visual: CLIP's image encoder, which the weights of these convolutions change in.
    """
    frozen = stays_frozen(visual)
    for name, child in visual.named_modules() if frozen else ():
        if isinstance(child, (nn.Conv2d, nn.Linear)):
            dtype = torch.bfloat16 if f"{name}.weight" in frozen else torch.float32
            child.to(dtype).register_forward_pre_hook(partial(_cast, dtype))


def _cast(dtype: torch.dtype, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """Cast what a layer gets; in autocast, leave that to it."""
    (x,) = inputs
    return None if torch.is_autocast_enabled(x.device.type) else (x.to(dtype),)


def stays_frozen(visual: nn.Module) -> frozenset[str]:
    """Names of the parameters that never train."""
    return getattr(visual, "stays_frozen", frozenset())


def stage_names(visual: Any) -> list[list[str]]:
    """Names of the parameters of each stage, of timm's CNNs inside open_clip's adapter; else none."""
    trunk: Any = getattr(visual, "trunk", None)
    if not hasattr(trunk, "group_matcher") or has_attention(trunk):
        return []
    from timm.models import group_parameters

    groups = group_parameters(trunk, trunk.group_matcher(coarse=True))
    return [[f"trunk.{name}" for name in groups[number]] for number in sorted(groups)]
