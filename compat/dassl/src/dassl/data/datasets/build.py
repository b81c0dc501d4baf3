"""Data sets by name."""

from __future__ import annotations

from typing import Any

from yacs.config import CfgNode

from ...utils.registry import Registry

DATASET_REGISTRY = Registry("DATASET")


def build_dataset(cfg: CfgNode) -> Any:
    """Build the data set that DATASET.NAME names.

    Raises:
        ValueError: If the name is unknown.
    """
    return DATASET_REGISTRY.build(cfg.DATASET.NAME, cfg)
