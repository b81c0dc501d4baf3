"""First stages of an image encoder, which can stay frozen: they extract edges and textures, and cost half of a step."""

from __future__ import annotations

from typing import Any

from torch import nn

from coft.backbones.architecture import has_attention
from coft.backbones.joint import members_of
from coft.core.errors import UserError


def freeze_stages(visual: Any, stages: int, source: str = "MODEL.BACKBONE.FROZEN_STAGES") -> None:
    """Mark the first stages of a timm CNN as frozen, in every phase of every trainer.

    Stages are counted as in timm: the stem is the first one, followed by each stage of blocks.

    Args:
        visual: Image encoder of a CLIP. Its attribute `stays_frozen` is set.
        stages: Number of stages to freeze.
        source: Name of the setting that holds the number, for the error message.

    Raises:
        UserError: If the encoder has too few stages, or is not a timm CNN.
    """
    if len(members := members_of(visual)) > 1:
        for member in members:
            freeze_stages(member, stages, source)
        return
    names = stage_names(visual) if stages else []
    if stages and stages >= len(names):
        has = f"has {len(names)} stages, of which the last must train" if names else "is no CNN of timm's"
        raise UserError(f"{source} is {stages}, but the image encoder {has}; set a smaller number")
    visual.stays_frozen = frozenset(name for stage in names[:stages] for name in stage)


def stays_frozen(visual: nn.Module) -> frozenset[str]:
    """Return the names of the parameters that stay frozen."""
    return getattr(visual, "stays_frozen", frozenset())


def stage_names(visual: Any) -> list[list[str]]:
    """Return the parameter names of each stage of a timm CNN in open_clip's adapter; empty for other encoders."""
    trunk: Any = getattr(visual, "trunk", None)
    if not hasattr(trunk, "group_matcher") or has_attention(trunk):
        return []
    from timm.models import group_parameters

    groups = group_parameters(trunk, trunk.group_matcher(coarse=True))
    return [[f"trunk.{name}" for name in groups[number]] for number in sorted(groups)]
