"""Trainers: importing this package enters every one of them in Dassl's TRAINER_REGISTRY."""

from __future__ import annotations

from typing import Any

from . import (
    coft,
    coft_plus,
    coop,
    deft,
    lafter,
    norm_adaptation,
    oracle,
    self_training,
    supervised,
    zeroshot,
)
from .sections import add_general, add_trainers

__all__ = [
    "coft",
    "coft_plus",
    "coop",
    "deft",
    "extend_cfg",
    "lafter",
    "norm_adaptation",
    "oracle",
    "self_training",
    "supervised",
    "zeroshot",
]


def extend_cfg(cfg: Any) -> None:
    """Add the project's keys to Dassl's config; call it before any file is merged.

    INPUT.SIZE, PIXEL_MEAN and PIXEL_STD become empty, which means: as the backbone has them.
    """
    add_general(cfg)
    add_trainers(cfg)
