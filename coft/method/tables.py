"""Tables of many images: in memory while they are small, else in a file that is mapped into memory.

What is mapped takes disk, not memory: the system keeps as much of it in memory as there is room for. Whatever is made
of a table is made a few rows at a time, so nothing beside it grows with the images by more than a number for each.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from coft.runtime.errors import UserError

IN_MEMORY = 256 << 20  # bytes of a table, beyond which it is mapped
ROWS = 4096  # that are worked on at a time


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
            f"({os.strerror(error.errno or errno.EIO)}); make room, or choose another --output-dir"
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


def chunks(*tables: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same few rows of some tensors of one length, from the first to the last."""
    yield from zip(*(table.split(ROWS) for table in tables), strict=True)


class Rows:
    """A table that is filled from its first row to its last.

    Args:
        count: How many rows there will be.
        folder: See `new_table`.
    """

    def __init__(self, count: int, folder: str | Path) -> None:
        self.count, self.folder = count, folder
        self._table: Tensor | None = None
        self._done = 0

    def add(self, part: Tensor) -> None:
        """Add rows, shape (n, columns), on any device."""
        if self._table is None:
            self._table = new_table(self.count, part.shape[1], part.dtype, self.folder)
        self._table[self._done : self._done + len(part)] = part
        self._done += len(part)

    def table(self) -> Tensor:
        """The table, shape (count, columns), on the CPU."""
        if self._table is None or self._done != self.count:
            raise ValueError(f"{self._done} rows came, {self.count} were announced")
        return self._table


def map_rows(compute: Callable[..., Tensor], *tables: Tensor, folder: str | Path) -> Tensor:
    """Compute a table from the rows of others.

    Args:
        compute: Makes rows from the same rows of all tables, each row from its own alone.
        *tables: Shape (N, any) each.
        folder: See `new_table`.

    Returns:
        Shape (N, columns), on the CPU.
    """
    result = Rows(len(tables[0]), folder)
    for rows in chunks(*tables):
        result.add(compute(*rows))
    return result.table()


def each_row(compute: Callable[..., Tensor], *tables: Tensor) -> Tensor:
    """Compute a number for each row of some tables, or a few numbers.

    Args:
        compute: Makes the numbers of some rows, each row's from its own alone.
        *tables: Shape (N, any) each.

    Returns:
        Shape (N,) or (N, few), in memory.
    """
    return torch.cat([compute(*rows) for rows in chunks(*tables)])
