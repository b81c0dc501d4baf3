"""Data sets. Importing this package registers all of them in Dassl's DATASET_REGISTRY.

Every module of this folder is imported, so a new data set is one new file.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
