"""Numbers of many images, a row an image: worked out a few rows at a time where they are asked for, and never kept.

The scores of a million images for a thousand classes do not fit into memory; the features that they are made of do. So
a table is what makes its rows. What is made of a table is a table again, until a few numbers an image are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

ROWS = 256  # that are worked on at a time: of a thousand classes, what the cache holds
Which = slice | Tensor  # of the images: a range, or their indices


class Table:
    """Rows of numbers.

    Args:
        count: How many rows there are, N.
        rows: Makes the rows of some images, each from what belongs to its own image alone.
    """

    def __init__(self, count: int, rows: Callable[[Which], Tensor]) -> None:
        self.count = count
        self._rows = rows

    @classmethod
    def of(cls, numbers: Tensor) -> Table:
        """A table of numbers that are at hand, shape (N, ...). Of a type of 16 bits, rows come in fp32."""
        return cls(len(numbers), lambda which: _in_full(numbers[which]))

    def __len__(self) -> int:
        return self.count

    def map(self, function: Callable[..., Tensor], *others: Table | Tensor) -> Table:
        """A table whose rows are made of this one's.

        Args:
            function: Takes the same rows of this table and of the others.
            *others: Of as many rows.
        """
        tables = [self, *(other if isinstance(other, Table) else Table.of(other) for other in others)]
        return Table(self.count, lambda which: function(*(table._rows(which) for table in tables)))

    def at(self, index: Tensor) -> Tensor:
        """Rows of some images, in their order.

        Args:
            index: Shape (n,).

        Returns:
            Shape (n, columns).
        """
        return self._rows_of(index.split(ROWS), len(index))

    def all(self) -> Tensor:
        """All rows, of a table with few columns. Shape (N, columns)."""
        return self._rows_of(self._ranges(), self.count)

    def mean(self) -> Tensor:
        """Mean over all rows, of their type. Shape (columns,)."""
        return sum((self._rows(which).sum(dim=0) for which in self._ranges()), torch.zeros(())) / self.count

    def inner(self, other: Table) -> Tensor:
        """Sum over all rows of the products of this table's columns and another's. Shape (columns, its columns)."""
        products = (self._rows(which).t() @ other._rows(which) for which in self._ranges())
        return sum(products, torch.zeros(()))

    def _rows_of(self, parts: Sequence[Which], count: int) -> Tensor:
        """Rows of parts of the images, one after the other: written where they stay, so that there is no copy."""
        first, done = self._rows(parts[0]), 0
        rows = first.new_empty(count, *first.shape[1:])
        for part in parts:
            of_part = first if part is parts[0] else self._rows(part)
            rows[done : done + len(of_part)] = of_part
            done += len(of_part)
        return rows

    def _ranges(self) -> Sequence[slice]:
        return [slice(start, min(start + ROWS, self.count)) for start in range(0, max(1, self.count), ROWS)]


def _in_full(rows: Tensor) -> Tensor:
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
