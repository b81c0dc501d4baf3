"""The backbone of a run: the frozen CLIP that a config names, and the precision of its forward pass."""

from __future__ import annotations

import logging
from typing import Any

import torch

from coft.backbones.architecture import is_convolutional
from coft.backbones.load import architecture, load_clip
from coft.backbones.stages import freeze_stages
from coft.runtime.errors import UserError
from coft.runtime.precision import AUTO, PRECISIONS, PREDICTIONS, faster_precision

log = logging.getLogger(__name__)


def load_backbone(cfg: Any, device: torch.device) -> Any:
    """Load the frozen CLIP of a config.

    Returns:
        A CLIP of any family, on the device.

    Raises:
        UserError: If INPUT.SIZE does not fit it.
    """
    name, trust = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.TRUST_JIT
    known = architecture(name, trust)
    size = tuple(cfg.INPUT.SIZE)
    if not known.reads(size):
        raise UserError(
            f"INPUT.SIZE is {size}, backbone {name} reads {known.sizes}; leave INPUT.SIZE unset to follow it"
        )
    clip_model: Any = load_clip(name, trust).to(device)
    freeze_stages(clip_model.visual, max(0, cfg.MODEL.BACKBONE.FROZEN_STAGES))
    if is_convolutional(clip_model.visual):
        clip_model.visual.to(memory_format=torch.channels_last)  # faster convolutions, the same results
    return clip_model


def forward_type(precision: str, device: torch.device, key: str) -> torch.dtype | None:
    """Type of the forward pass; weights stay fp32. fp16 on a CPU is run as fp32.

    Args:
        precision: A name of `PRECISIONS`, or "auto".
        device: Of the models.
        key: What named it, for the error message.

    Returns:
        None for fp32.

    Raises:
        UserError: If the name is unknown.
    """
    if precision == AUTO:
        precision = faster_precision(device.type)
    if precision not in PRECISIONS:
        raise UserError(f"{key} is {precision!r}; expected one of {', '.join([*PRECISIONS, AUTO])}")
    dtype = PRECISIONS[precision]
    if dtype is torch.float16 and device.type == "cpu":
        dtype = None
    log.info("Precision: %s", precision if dtype or precision == PREDICTIONS else "fp32")
    return dtype


def precision_of(dtype: torch.dtype | None) -> str:
    """Name of a type of the forward pass."""
    return {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
