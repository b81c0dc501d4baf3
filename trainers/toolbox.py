"""The Dassl distribution that the trainers run on."""

from __future__ import annotations

import importlib.metadata
from functools import cache

import dassl

KNOWN = ("dassl-compat", "dassl")  # usual distributions of the package `dassl`


@cache
def dassl_in_use() -> str:
    """Return distribution and version of the imported package `dassl`."""
    names = [name for name in KNOWN if _version(name)]
    for name in names or importlib.metadata.packages_distributions().get("dassl", []):  # slow: reads all packages
        return f"{name} {_version(name)}"
    return f"dassl {dassl.__version__} (not installed as a distribution)"


def _version(name: str) -> str:
    """Return the version of a distribution; "" if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
