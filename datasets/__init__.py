"""Data sets. Importing this package registers all of them in Dassl's DATASET_REGISTRY.

All modules of the folder are imported, so that adding a file adds a data set.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
