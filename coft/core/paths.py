"""Locations of the files that come with the code, and of the cache that runs share.

In a checkout, the files are beside the package. An installed package contains the files that it needs.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
WITHIN = PACKAGE / "files"  # only in an installed package: the files that pyproject.toml puts there
INSTALLED = WITHIN.is_dir()
HOME = WITHIN if INSTALLED else PACKAGE.parent


def expanded(path: str | os.PathLike[str]) -> Path:
    """Expand a leading ~ or ~user of a path. As in a shell, an unknown user is left as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises for an unknown user


def cache_folder() -> Path:
    """Return the folder for features that later runs can reuse.

    It is in the checkout, or in the user's cache folder if the package is installed or the checkout is read-only.
    """
    folder = HOME / "cache"
    if not INSTALLED and os.access(folder if folder.exists() else HOME, os.W_OK):
        return folder
    kept = expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    # in some containers the user has no home folder
    return kept / "coft" if not str(kept).startswith("~") else Path(tempfile.gettempdir()) / f"coft-{os.getuid()}"
