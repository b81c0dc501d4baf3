"""File tools, and atomic writing of files."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

__all__ = ["check_isfile", "listdir_nohidden", "mkdir_if_missing", "read_json", "replacing", "write_json"]

StrPath = str | os.PathLike[str]


@contextlib.contextmanager
def replacing(fpath: StrPath) -> Iterator[IO[bytes]]:
    """Context that writes a file under a temporary name next to it, and renames it when all data are on disk.

    The temporary name is always the same, so that killed runs leave at most one such file behind.

    Yields:
        The open temporary file.
    """
    path = Path(fpath)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.tmp")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def mkdir_if_missing(dirname: StrPath) -> None:
    """Make a folder and its parents, unless they exist."""
    Path(dirname).mkdir(parents=True, exist_ok=True)


def check_isfile(fpath: StrPath) -> bool:
    """Return whether a file exists, with a warning if it does not."""
    if Path(fpath).is_file():
        return True
    warnings.warn(f'No file found at "{os.fspath(fpath)}"', stacklevel=2)
    return False


def listdir_nohidden(path: StrPath, sort: bool = False) -> list[str]:
    """List the names in a folder that do not begin with a dot.

    Args:
        path: Path of the folder.
        sort: Whether to sort the names.
    """
    names = [entry.name for entry in Path(path).iterdir() if not entry.name.startswith(".")]
    return sorted(names) if sort else names


def read_json(fpath: StrPath) -> Any:
    """Read a JSON file."""
    return json.loads(Path(fpath).read_text(encoding="utf-8"))


def write_json(obj: Any, fpath: StrPath) -> None:
    """Write a JSON file atomically; a missing folder is created."""
    text = json.dumps(obj, indent=4)
    with replacing(fpath) as file:
        file.write(text.encode("utf-8"))
