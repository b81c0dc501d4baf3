"""Paths as users write them: relative to where a script was called. Scripts themselves run in the project's root."""

from __future__ import annotations

import os
from pathlib import Path

from coft.core.paths import cache_folder, expanded


def called_from(path: str | Path) -> Path:
    """Convert a user's path to one relative to the project's root. $CALLED_FROM is the folder of the caller."""
    caller = Path(os.environ.get("CALLED_FROM") or ".")
    user_path = expanded(path)
    return user_path if caller.resolve() == Path.cwd() else caller / user_path


def data_folder() -> Path:
    """Return the default data root: $DATA, or `data` in the project's root."""
    data = os.environ.get("DATA")
    return called_from(data) if data else Path("data")


def pretraining_cache() -> Path:
    """Return the folder for packages and states of pre-training runs: $COFT_CACHE, or `pretrain` in the cache."""
    return called_from(os.environ.get("COFT_CACHE") or cache_folder() / "pretrain")


def display_path(path: Path) -> Path:
    """Return a path for messages: unchanged if the script was called in the project's root, otherwise absolute."""
    return path if called_from("") == Path() else path.resolve()
