"""Default configuration."""

from __future__ import annotations

from yacs.config import CfgNode

from .defaults import DEFAULTS

__all__ = ["clean_cfg", "get_cfg_default"]


def get_cfg_default() -> CfgNode:
    """Return a fresh copy of the default configuration."""
    return DEFAULTS.clone()


def clean_cfg(cfg: CfgNode, trainer: str) -> None:
    """Drop the settings of other trainers, so that a printed config shows only relevant settings.

    Args:
        cfg: Config, changed in place: `cfg.TRAINER` keeps only NAME and the section of the trainer.
        trainer: Name of the trainer, in any case.
    """
    for key in list(cfg.TRAINER):
        if key not in ("NAME", trainer.upper()):
            del cfg.TRAINER[key]
