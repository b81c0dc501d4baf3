"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coft.runtime.errors import UserError


def ensure_folder(path: Path, flag: str) -> None:
    """Make a folder with those above it.

    Args:
        path: The folder.
        flag: What named it, for the error message.

    Raises:
        UserError: If it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{flag} {path}: no folder can be there ({error.strerror}); choose another") from error


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Context in which results are written: what the disk refuses is one line for the user.

    Raises:
        UserError: If it refuses.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written to ({error.strerror or error}); see to the disk, and do the same again"
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name beside it, and rename it when all is written.

    Yields:
        The temporary path, with the same suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
