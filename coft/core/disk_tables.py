"""Tables too large for memory: in a file that is mapped into memory.

What is mapped takes disk, not memory: the system keeps as much of it in memory as there is room for.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .errors import UserError

IN_MEMORY = 256 << 20  # bytes of a table, beyond which it is mapped


def tables_in(folder: str | Path) -> Callable[[int, int, torch.dtype], Tensor]:
    """What makes tables, whose files are in a folder if they are large."""
    return partial(new_table, folder=folder)


def new_table(rows: int, columns: int, dtype: torch.dtype, folder: str | Path) -> Tensor:
    """Make a table to be filled.

    The file of one that is mapped loses its name at once: it is gone when the table is, or when the process ends in
    whatever way.

    Args:
        rows: As a rule, one an image.
        columns: As a rule, one a class.
        dtype: Of the numbers.
        folder: Where the file of a large table is made.

    Returns:
        Shape (rows, columns), on the CPU, with anything in it.

    Raises:
        UserError: If there is no room for the file.
    """
    size = rows * columns * dtype.itemsize
    if size <= IN_MEMORY:
        return torch.empty(rows, columns, dtype=dtype)
    Path(folder).mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".table.", dir=folder)
    try:
        _reserve(handle, size)
        flat = torch.from_file(name, shared=True, size=rows * columns, dtype=dtype)
    except OSError as error:
        raise UserError(
            f"folder {folder}: no room for a table of {size / 2**30:.1f} GiB, which is too large for memory "
            f"({os.strerror(error.errno or errno.EIO)}); make room, or choose another output folder"
        ) from error
    finally:
        os.close(handle)
        Path(name).unlink()
    return flat.view(rows, columns)


def _reserve(handle: int, size: int) -> None:
    """Give a file its size, with all blocks: a mapped file without would end the process when the disk is full."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        os.truncate(handle, size)
