"""Configs and small data roots for tests of data sets."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any


def config(root: Path, **dataset: Any) -> Any:
    """A config with nothing but what data sets read."""
    defaults = {"ROOT": str(root), "NUM_SHOTS": -1, "SUBSAMPLE_CLASSES": "all", "NUM_UNLABELED": 0}
    return SimpleNamespace(DATASET=SimpleNamespace(**defaults | dataset))
