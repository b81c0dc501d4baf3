"""Trainers by name."""

from __future__ import annotations

from typing import Any

from yacs.config import CfgNode

from ..utils.registry import Registry

TRAINER_REGISTRY = Registry("TRAINER")


def build_trainer(cfg: CfgNode) -> Any:
    """Build the trainer that TRAINER.NAME names.

    Raises:
        ValueError: If the name is unknown.
    """
    return TRAINER_REGISTRY.build(cfg.TRAINER.NAME, cfg)
