"""The backbone of a run: the frozen CLIP that a config names, its input format, and the precision of its forward pass.

A config is any object with its sections and keys as attributes.
"""

from __future__ import annotations

import logging
from typing import Any

import torch

from coft.backbones.layout import optimize_layout
from coft.backbones.load import architecture, load_clip
from coft.backbones.stages import freeze_stages
from coft.backbones.visual_tuning import VISUAL_MODULES
from coft.core.errors import UserError, did_you_mean
from coft.core.precision import AUTO, PRECISIONS, faster_precision

log = logging.getLogger(__name__)


def load_backbone(cfg: Any, device: torch.device) -> Any:
    """Load the frozen CLIP of a config.

    Returns:
        CLIP of any supported family, on the device.

    Raises:
        UserError: If INPUT.SIZE does not fit the backbone.
    """
    name, trust = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.TRUST_JIT
    network = architecture(name, trust)
    size = tuple(cfg.INPUT.SIZE)
    if not network.reads(size):
        raise UserError(
            f"INPUT.SIZE is {size}, backbone {name} accepts {network.sizes}; leave INPUT.SIZE unset to use its default"
        )
    clip_model: Any = load_clip(name, trust).to(device)
    freeze_stages(clip_model.visual, max(0, cfg.MODEL.BACKBONE.FROZEN_STAGES))
    optimize_layout(clip_model.visual, network.resolution)
    return clip_model


def follow_backbone(cfg: Any) -> None:
    """Fill in unset input settings from the backbone: size, mean, standard deviation, interpolation, frozen stages."""
    network, settings = architecture(cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.TRUST_JIT), cfg.INPUT
    settings.SIZE = tuple(settings.SIZE) or (network.resolution,) * 2
    settings.PIXEL_MEAN = list(settings.PIXEL_MEAN) or list(network.mean)
    settings.PIXEL_STD = list(settings.PIXEL_STD) or list(network.std)
    settings.INTERPOLATION = settings.INTERPOLATION or network.interpolation
    if cfg.MODEL.BACKBONE.FROZEN_STAGES < 0:
        cfg.MODEL.BACKBONE.FROZEN_STAGES = network.frozen_stages


def faster(cfg: Any) -> str:
    """Return the precision that "auto" stands for on this machine."""
    return faster_precision("cuda" if cfg.USE_CUDA and torch.cuda.is_available() else "cpu")


def check_light_module(name: str, key: str) -> None:
    """Check that a light visual module of this name exists.

    Args:
        name: Name that the user gave.
        key: Name of the setting, for the error message.

    Raises:
        UserError: If there is no module of this name.
    """
    if name not in (names := ("auto", *VISUAL_MODULES)):
        raise UserError(f"{key} is {name!r}; {did_you_mean(name, names)}")


def forward_type(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the dtype of the forward pass. Weights stay fp32, and fp16 falls back to fp32 on a CPU.

    Args:
        precision: Key of `PRECISIONS`, or "auto".
        device: Device of the models.

    Returns:
        The dtype; None for fp32.
    """
    if precision == AUTO:
        precision = faster_precision(device.type)
    dtype = PRECISIONS[precision]
    if dtype is torch.float16 and device.type == "cpu":
        dtype = None
    log.info("Precision: %s", precision if dtype else "fp32")
    return dtype
