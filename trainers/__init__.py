"""Trainers: importing this package enters every one of them in Dassl's TRAINER_REGISTRY.

Every module of this folder is imported, so a new trainer is one file.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from .sections import add_general, add_trainers

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def extend_cfg(cfg: Any) -> None:
    """Add the project's keys to Dassl's config; call it before any file is merged.

    INPUT.SIZE, PIXEL_MEAN, PIXEL_STD and INTERPOLATION become empty, which means: as the backbone has them.
    """
    add_general(cfg)
    add_trainers(cfg)
