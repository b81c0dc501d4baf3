"""The first stages of an image encoder, which can stay frozen: they see edges and textures, and cost half of a step."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from coft.backbones.architecture import has_attention
from coft.backbones.joint import members_of
from coft.core.errors import UserError


def freeze_stages(visual: Any, stages: int, source: str = "MODEL.BACKBONE.FROZEN_STAGES") -> None:
    """Mark the first stages of a timm CNN as frozen, in every phase of every trainer.

    The stages are those of timm: the stem counts as one, then each stage of blocks.

    Args:
        visual: Image encoder of a CLIP. It gets the attribute `stays_frozen`.
        stages: Number of stages to freeze.
        source: Where the number is from, for the error.

    Raises:
        UserError: If the encoder has too few stages.
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


def hold_frozen_in_bf16(visual: nn.Module) -> None:
    """Run the convolutions of frozen stages in bf16 from now on, in training and prediction. Others stay in fp32.

    Only gradients are slow in bf16, and frozen convolutions need none. Copies of the encoder behave the same.

    Args:
        visual: Image encoder of a CLIP. The weights of its frozen convolutions change in place.
    """
    for member in members_of(visual):
        frozen = stays_frozen(member)
        for name, child in member.named_modules() if frozen else ():
            if isinstance(child, (nn.Conv2d, nn.Linear)):
                dtype = torch.bfloat16 if f"{name}.weight" in frozen else torch.float32
                child.to(dtype).register_forward_pre_hook(partial(_cast, dtype))


def _cast(dtype: torch.dtype, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """Cast the input of a layer, unless autocast does that."""
    (x,) = inputs
    return None if torch.is_autocast_enabled(x.device.type) else (x.to(dtype),)


def stays_frozen(visual: nn.Module) -> frozenset[str]:
    """Names of the parameters that stay frozen."""
    return getattr(visual, "stays_frozen", frozenset())


def stage_names(visual: Any) -> list[list[str]]:
    """Names of the parameters of each stage of a timm CNN in open_clip's adapter; empty for other encoders."""
    trunk: Any = getattr(visual, "trunk", None)
    if not hasattr(trunk, "group_matcher") or has_attention(trunk):
        return []
    from timm.models import group_parameters

    groups = group_parameters(trunk, trunk.group_matcher(coarse=True))
    return [[f"trunk.{name}" for name in groups[number]] for number in sorted(groups)]
