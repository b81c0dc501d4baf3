"""Paths as users write them: relative to where they called a script, which changes to the project's root first."""

from __future__ import annotations

import os
from pathlib import Path


def called_from(path: str | Path) -> Path:
    """A path that a user wrote, as it is seen from the project's root; the caller's folder is in CALLED_FROM."""
    place = Path(os.environ.get("CALLED_FROM") or ".")
    given = Path(path).expanduser()
    return given if place.resolve() == Path.cwd() else place / given


def data_folder() -> Path:
    """Folder of all data sets where no flag names one: $DATA, else data in the project's root."""
    given = os.environ.get("DATA")
    return called_from(given) if given else Path("data")


def shown(path: Path) -> Path:
    """A path as a user finds it: as it is where the script was called in the project's root, else absolute."""
    return path if called_from("") == Path() else path.resolve()
