"""First stages of an image encoder that never train: they see edges and textures, and cost half of a step."""

from __future__ import annotations

from typing import Any

from torch import nn

from coft.backbones.architecture import has_attention
from coft.runtime.errors import UserError


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
