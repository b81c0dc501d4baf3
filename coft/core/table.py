"""Lazy tables with one row per image: rows are computed when they are needed, a few at a time, and never stored.

The scores of a million images for a thousand classes do not fit into memory, but the features that they are computed
from do. A table therefore holds a function that computes its rows. `Table.map` is lazy as well; `at`, `all`, `mean` and
`inner` compute numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

ROWS = 256  # rows that are computed at a time: with a thousand classes, they fit into the CPU's cache
Selection = slice | Tensor  # selection of images: a range, or their indices


class Table:
    """Lazy table of numbers, one row per image.

    Args:
        count: Number of rows, N.
        rows: Function that computes the rows of selected images. Each row must depend on its own image only.
    """

    def __init__(self, count: int, rows: Callable[[Selection], Tensor]) -> None:
        self.count = count
        self._rows = rows

    @classmethod
    def of(cls, numbers: Tensor) -> Table:
        """Make a table from a tensor of shape (N, ...). Rows of fp16 and bf16 tensors are converted to fp32."""
        return cls(len(numbers), lambda which: _to_float32(numbers[which]))

    def __len__(self) -> int:
        return self.count

    def map(self, function: Callable[..., Tensor], *others: Table | Tensor) -> Table:
        """Return a lazy table whose rows are computed from those of this table.

        Args:
            function: Function of the same rows of this table and of the others.
            *others: Tables or tensors with the same number of rows.
        """
        tables = [self, *(other if isinstance(other, Table) else Table.of(other) for other in others)]
        return Table(self.count, lambda which: function(*(table._rows(which) for table in tables)))

    def at(self, index: Tensor) -> Tensor:
        """Compute the rows of some images.

        Args:
            index: Indices of the images. Shape (n,).

        Returns:
            Rows in the order of `index`. Shape (n, columns).
        """
        return self._rows_of(index.split(ROWS), len(index))

    def all(self) -> Tensor:
        """Compute all rows; for tables with few columns. Shape (N, columns)."""
        return self._rows_of(self._ranges(), self.count)

    def mean(self) -> Tensor:
        """Compute the mean over all rows, in their dtype. Shape (columns,)."""
        return sum((self._rows(which).sum(dim=0) for which in self._ranges()), torch.zeros(())) / self.count

    def inner(self, other: Table) -> Tensor:
        """Compute the product of this table, transposed, and another one. Shape (columns, columns of `other`)."""
        products = (self._rows(which).t() @ other._rows(which) for which in self._ranges())
        return sum(products, torch.zeros(()))

    def sum_by(self, group: Tensor, groups: int) -> Tensor:
        """Compute the sums over the rows of each group.

        Args:
            group: Number of the group of each row. Shape (N,).
            groups: Number of groups.

        Returns:
            Sums. Shape (groups, columns).
        """
        first, *others = self._ranges()
        rows = self._rows(first)
        sums = rows.new_zeros(groups, rows.shape[1]).index_add_(0, group[first], rows)
        for which in others:
            sums.index_add_(0, group[which], self._rows(which))
        return sums

    def _rows_of(self, parts: Sequence[Selection], count: int) -> Tensor:
        """Compute the rows of consecutive selections, and write each into the result, without a final concatenation."""
        first, done = self._rows(parts[0]), 0
        rows = first.new_empty(count, *first.shape[1:])
        for part in parts:
            of_part = first if part is parts[0] else self._rows(part)
            rows[done : done + len(of_part)] = of_part
            done += len(of_part)
        return rows

    def _ranges(self) -> Sequence[slice]:
        return [slice(start, min(start + ROWS, self.count)) for start in range(0, max(1, self.count), ROWS)]


def _to_float32(rows: Tensor) -> Tensor:
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
