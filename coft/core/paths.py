"""Where files are that come with the code, and where results are kept between runs.

A checkout has them beside the package. An installed package has those that it needs within itself.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
WITHIN = PACKAGE / "files"  # of an installed package: what pyproject.toml puts there
INSTALLED = WITHIN.is_dir()
HOME = WITHIN if INSTALLED else PACKAGE.parent


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path as a user writes it, with the home for a ~; that of nobody stays as it is, as in a shell."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path's own raises where there is no such user


def cache_folder() -> Path:
    """Where the features and the indices of folders are kept that another run can use again.

    That is the checkout; the user's own cache for an installed package, and for a checkout that cannot be written to.
    """
    folder = HOME / "cache"
    if not INSTALLED and os.access(folder if folder.exists() else HOME, os.W_OK):
        return folder
    kept = expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    # a user may have no home, as in some containers
    return kept / "coft" if not str(kept).startswith("~") else Path(tempfile.gettempdir()) / f"coft-{os.getuid()}"
