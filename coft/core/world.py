"""Several processes that make one run: which images are whose, and what all of them add up or put together.

Images are dealt out by index, in blocks: rank 0 has the first ones. A table of all images is kept as each rank's own
rows of it, and never put together; a number for each image is. What is decided of all images is decided by every rank,
from sums and from numbers in the order of the index, so all decide alike.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn


class World:
    """The processes of a run. Of a single one, every operation returns what it was given.

    All ranks must call the same operations in the same order.

    Args:
        rank: Of this process.
        size: Number of processes.

    Attributes:
        waited: Seconds that this process has spent in waiting for others, and in what they exchange.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size, self.waited = rank, size, 0.0

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.size == 1

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes files and speaks to people."""
        return self.rank == 0

    # ---------------------------------------------------------------- whose images

    def part(self, count: int, rank: int | None = None) -> slice:
        """Which of so many images are this rank's, or another one's. Those that are first have one more, if any."""
        own = self.rank if rank is None else rank
        return slice(-(-count * own // self.size), -(-count * (own + 1) // self.size))

    def index(self, count: int) -> Tensor | None:
        """Indices of this rank's images. Shape (n,); None where all of them are."""
        return None if self.alone else torch.arange(count)[self.part(count)]

    def own(self, index: Tensor, count: int) -> tuple[Tensor | slice, Tensor]:
        """Which of some images are this rank's, and in which of its rows they are.

        Args:
            index: Of the images. Shape (n,).
            count: N.

        Returns:
            What picks them out of the n, and their rows, shape (m,).
        """
        if self.alone:
            return slice(None), index
        part = self.part(count)
        mine = torch.nonzero((index >= part.start) & (index < part.stop)).flatten()
        return mine, index[mine] - part.start

    # ---------------------------------------------------------------- numbers of all ranks

    def sum(self, values: Tensor) -> Tensor:
        """Sum of all ranks' numbers, the same on each. Shape as of `values`."""
        return values if self.alone else self._add(values.detach().clone())

    def total(self, count: int) -> int:
        """Sum of all ranks' counts."""
        return count if self.alone else int(self.sum(torch.tensor(count)))

    def mean(self, rows: Tensor) -> Tensor:
        """Mean over the rows of all ranks. Shape (k,).

        Args:
            rows: This rank's. Shape (n, k).
        """
        return rows.mean(dim=0) if self.alone else self.sum(rows.sum(dim=0)) / self.total(len(rows))

    def gather(self, rows: Tensor) -> Tensor:
        """Put the rows of all ranks together, in the order of the ranks.

        For numbers of each image, not for tables.

        Args:
            rows: This rank's. Shape (n, ...); other ranks may have more or fewer.

        Returns:
            Shape (N, ...).
        """
        if self.alone:
            return rows
        counts = torch.zeros(self.size, dtype=torch.long)
        counts[self.rank] = len(rows)
        sizes = self._add(counts).tolist()
        sent = rows.detach().to(torch.uint8) if rows.dtype is torch.bool else rows.detach()
        own = sent.new_zeros(max(sizes), *rows.shape[1:])
        own[: len(rows)] = sent
        parts = [torch.empty_like(own) for _ in sizes]
        with _Waiting(self, own):
            dist.all_gather(parts, own)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]).to(rows.dtype)

    def gather_batch(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Put a batch together of which each rank has a part.

        Args:
            rows: This rank's. Shape (n, ...).
            counts: Of the groups that the batch is made of; each is dealt out on its own.

        Returns:
            All of the first group, then all of the second, and so on. Shape (sum of the counts, ...).
        """
        if self.alone:
            return rows
        starts = [sum(counts[:group]) for group in range(len(counts))]
        groups = [torch.arange(start, start + count) for start, count in zip(starts, counts, strict=True)]
        place = torch.cat([group[self.part(len(group), rank)] for rank in range(self.size) for group in groups])
        found = self.gather(rows)
        ordered = torch.empty_like(found)
        ordered[place.to(found.device)] = found
        return ordered

    def take(self, table: Tensor, index: Tensor, count: int) -> Tensor:
        """Rows of a table that each rank has a part of, for all ranks.

        Args:
            table: This rank's rows. Shape (n, k).
            index: Which rows of the whole one; not so many that they would fill the memory. Shape (m,).
            count: N, rows of the whole one.

        Returns:
            Shape (m, k).
        """
        if self.alone:
            return table[index]
        which, rows = self.own(index, count)
        found = table.new_zeros(len(index), *table.shape[1:])
        found[which] = table[rows]
        return self._add(found)

    # ---------------------------------------------------------------- training

    def add_gradients(self, parameters: Sequence[nn.Parameter], numbers: Sequence[float]) -> list[float]:
        """Add up gradients over all ranks, and some numbers with them.

        A parameter without a gradient counts as one of zeros where another rank has one.

        Args:
            parameters: Theirs.
            numbers: As many on every rank.

        Returns:
            Sums of the numbers.
        """
        if self.alone:
            return list(numbers)
        first = parameters[0]
        there = [float(p.grad is not None) for p in parameters]
        flat = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
        small = torch.tensor([*there, *numbers], dtype=torch.float64, device=first.device)
        total = self._add(torch.cat([*flat])), self._add(small)
        begin, found = 0, total[1].tolist()
        for parameter, known in zip(parameters, found, strict=False):
            end = begin + parameter.numel()
            parameter.grad = total[0][begin:end].view_as(parameter).to(parameter.dtype) if known else None
            begin = end
        return found[len(parameters) :]

    @torch.no_grad()
    def align(self, tensors: Iterable[Tensor]) -> None:
        """Give all ranks the numbers of the first one, in place: rounding must not drive them apart."""
        if self.alone:
            return
        for tensor in tensors:
            same = tensor.detach().contiguous()
            with _Waiting(self, same):
                dist.broadcast(same, src=0)
            tensor.copy_(same)

    # ---------------------------------------------------------------- order

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self.total(0)

    def all_say(self, text: str) -> list[str]:
        """What each rank says, in the order of the ranks."""
        if self.alone:
            return [text]
        rows = torch.tensor([[len(text.encode())]])
        said, sizes = self.gather(torch.tensor(list(text.encode()), dtype=torch.uint8)), self.gather(rows).flatten()
        return [bytes(part.tolist()).decode() for part in said.split(sizes.tolist())]

    def _add(self, values: Tensor) -> Tensor:
        with _Waiting(self, values):
            dist.all_reduce(values)
        return values


class _Waiting:
    """Counts the seconds of an exchange, until the device is done with it."""

    def __init__(self, world: World, values: Tensor) -> None:
        self.world, self.device = world, values.device

    def __enter__(self) -> None:
        self._settle()
        self.since = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._settle()
        self.world.waited += time.perf_counter() - self.since

    def _settle(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()


ALONE = World()
