"""Tables of many images, made and read a few rows at a time.

Nothing beside a table grows with the images by more than a number for each. Where a table is kept, in memory or on
disk, is the business of whoever allocates it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

ROWS = 4096  # that are worked on at a time
Allocate = Callable[[int, int, torch.dtype], Tensor]  # rows, columns, type of the numbers


def in_memory(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """A table in memory, with anything in it. Shape (rows, columns)."""
    return torch.empty(rows, columns, dtype=dtype)


def chunks(*tables: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same few rows of some tensors of one length, from the first to the last."""
    yield from zip(*(table.split(ROWS) for table in tables), strict=True)


class Rows:
    """A table that is filled from its first row to its last.

    Args:
        count: How many rows there will be.
        allocate: Makes the table.
    """

    def __init__(self, count: int, allocate: Allocate = in_memory) -> None:
        self.count, self.allocate = count, allocate
        self._table: Tensor | None = None
        self._done = 0

    def add(self, part: Tensor) -> None:
        """Add rows, shape (n, columns), on any device."""
        if self._table is None:
            self._table = self.allocate(self.count, part.shape[1], part.dtype)
        self._table[self._done : self._done + len(part)] = part
        self._done += len(part)

    def table(self) -> Tensor:
        """The table, shape (count, columns), on the CPU."""
        if self._table is None or self._done != self.count:
            raise ValueError(f"{self._done} rows came, {self.count} were announced")
        return self._table


def map_rows(compute: Callable[..., Tensor], *tables: Tensor, allocate: Allocate = in_memory) -> Tensor:
    """Compute a table from the rows of others.

    Args:
        compute: Makes rows from the same rows of all tables, each row from its own alone.
        *tables: Shape (N, any) each.
        allocate: Makes the table.

    Returns:
        Shape (N, columns), on the CPU.
    """
    result = Rows(len(tables[0]), allocate)
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
