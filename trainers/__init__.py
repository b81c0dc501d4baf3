"""Dassl trainers. Importing this package registers all of them in Dassl's TRAINER_REGISTRY.

Every module of this folder is imported, so a new trainer needs only a new file.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from .sections import extend_cfg as extend_cfg

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
