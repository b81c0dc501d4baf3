"""Which Dassl the trainers run on."""

from __future__ import annotations

import importlib.metadata
from functools import cache

import dassl


@cache  # going through all packages takes a third of a second
def dassl_in_use() -> str:
    """Distribution and version that the name `dassl` was imported from."""
    for name in importlib.metadata.packages_distributions().get("dassl", []):
        return f"{name} {importlib.metadata.version(name)}"
    return f"dassl {dassl.__version__} (not installed as a distribution)"
