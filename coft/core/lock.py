"""Lock of an output folder: only one process at a time writes to it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import UserError
from .files import writing

PATIENCE = 6.0  # seconds: a process that was told to end holds its lock until it has ended
_held: set[int] = set()


@contextmanager
def exclusive_lock(folder: Path, patience: float | None = None) -> Iterator[None]:
    """Context that holds an exclusive lock on a folder. The system releases it when the process ends in any way.

    No lock is taken where the file system does not support locks, or the system has no `flock`. In a distributed run,
    only the main process should take it.

    Args:
        folder: An existing folder.
        patience: Seconds to wait for another process to release the lock; None for `PATIENCE`.

    Raises:
        UserError: If another process holds the lock, or the folder cannot be read.
    """
    if sys.platform == "win32":
        yield
        return
    with writing(folder):
        handle = os.open(folder, os.O_RDONLY)
    _held.add(handle)
    try:
        _take(handle, folder, PATIENCE if patience is None else patience)
        yield
    finally:
        _held.discard(handle)
        os.close(handle)


def _take(handle: int, folder: Path, patience: float) -> None:
    import fcntl

    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise UserError(
                    f"output folder {folder} is in use by another process; wait for it, or choose another folder"
                ) from error
            time.sleep(0.2)
        except OSError:  # the file system does not support locks
            return


def _let_go() -> None:
    """Close the handles of all locks in a forked child, which must hold none."""
    for handle in _held:
        with suppress(OSError):
            os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
