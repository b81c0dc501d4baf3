"""Trainers: importing this package enters every one of them in Dassl's TRAINER_REGISTRY."""

from __future__ import annotations

from typing import Any

from . import (
    coft,
    coft_plus,
    coop,
    deft,
    grip,
    lafter,
    norm_adaptation,
    oracle,
    self_training,
    supervised,
    upl,
    zeroshot,
)
from .sections import add_general, add_trainers

__all__ = [
    "coft",
    "coft_plus",
    "coop",
    "deft",
    "extend_cfg",
    "grip",
    "lafter",
    "norm_adaptation",
    "oracle",
    "self_training",
    "supervised",
    "upl",
    "zeroshot",
]

# In this order, for some take over the defaults of others. Zero-shot CLIP has no keys.
WITH_KEYS = (coop, upl, grip, coft, coft_plus, deft, oracle, self_training, supervised, lafter, norm_adaptation)


def extend_cfg(cfg: Any) -> None:
    """Add the project's keys to Dassl's config; call it before any file is merged.

    INPUT.SIZE, PIXEL_MEAN and PIXEL_STD become empty, which means: as the backbone has them.
    """
    add_general(cfg)
    for trainer in WITH_KEYS:
        trainer.add_config(cfg)
    add_trainers(cfg)
