"""Distributed runs: how images are split over processes, and the collective operations between them.

Images are split by index into consecutive blocks; rank 0 has the first block. Each process encodes its own block.
Decisions that need all images are made by the main process, and sent to the others.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class World:
    """Group of the processes of a run. With a single process, every operation returns its input.

    All ranks must call the same operations in the same order.

    Args:
        rank: Rank of this process.
        size: Number of processes.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def is_single(self) -> bool:
        """Whether this is the only process."""
        return self.size == 1

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, which makes all decisions and writes all files and messages."""
        return self.rank == 0

    def part(self, count: int, rank: int | None = None) -> slice:
        """Return the slice of `count` images that belongs to a rank, by default this one. Sizes differ by at most 1."""
        place = self.rank if rank is None else rank
        return slice(-(-count * place // self.size), -(-count * (place + 1) // self.size))

    # ---------------------------------------------------------------- reductions and gathering

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all ranks, on each of them. Shape as `values`."""
        return values if self.is_single else self._add(values.detach().clone())

    def gather(self, rows: Tensor) -> Tensor:
        """Concatenate the rows of all ranks, in the order of the ranks, on each of them.

        Args:
            rows: Rows of this rank. Shape (n,) or (n, k). The number of rows may differ between ranks, and an empty
                tensor may have any width.

        Returns:
            Rows of all ranks. Shape (N,) or (N, k).
        """
        if self.is_single:
            return rows
        sizes, sent = self._alike(rows)
        parts = [torch.empty_like(sent) for _ in sizes]
        dist.all_gather(parts, sent)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]).to(rows.dtype)

    def collect(self, rows: Tensor) -> list[Tensor]:
        """Collect the rows of all ranks on rank 0. `rows` is as for `gather`, but on the CPU.

        Returns:
            Rows of each rank, on rank 0; an empty list on the others.
        """
        if self.is_single:
            return [rows]
        sizes, sent = self._alike(rows)
        parts = [torch.empty_like(sent) for _ in sizes] if self.is_main else None
        dist.gather(sent, parts, dst=0)
        return [part[:size] for part, size in zip(parts or [], sizes, strict=False)]

    def _alike(self, rows: Tensor) -> tuple[list[int], Tensor]:
        """Return the number of rows of each rank, and this rank's rows, padded to the same shape and dtype on all."""
        shapes = torch.zeros(self.size, 3, dtype=torch.long)
        if len(rows):
            shapes[self.rank] = torch.tensor([len(rows), math.prod(rows.shape[1:]), rows.dtype is torch.float64])
        sizes, width, double = self._add(shapes).unbind(dim=1)
        dtype = torch.uint8 if rows.dtype is torch.bool else torch.float64 if double.any() else rows.dtype
        shape = (int(sizes.max()), int(width.max())) if rows.dim() > 1 else (int(sizes.max()),)
        sent = torch.zeros(shape, dtype=dtype, device=rows.device)
        sent[: len(rows)] = rows.detach() if len(rows) else sent[:0]
        return sizes.tolist(), sent

    # ---------------------------------------------------------------- broadcast from rank 0

    def broadcast(self, content: Any) -> Any:
        """Broadcast an object from rank 0 to all other ranks.

        Args:
            content: Tensors and plain containers; ignored on all ranks but 0.

        Returns:
            The object of rank 0.
        """
        if self.is_single:
            return content
        data = _packed(content) if self.is_main else torch.empty(0, dtype=torch.uint8)
        size = torch.tensor(len(data))
        dist.broadcast(size, src=0)
        data = data if self.is_main else torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(data, src=0)
        return content if self.is_main else torch.load(io.BytesIO(data.numpy().tobytes()), weights_only=True)

    @torch.no_grad()
    def broadcast_(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors, in place, with those of rank 0."""
        if self.is_single:
            return
        for tensor in tensors:
            same = tensor.detach().contiguous()
            dist.broadcast(same, src=0)
            tensor.copy_(same)

    # ---------------------------------------------------------------- training

    def add_gradients(self, parameters: Sequence[nn.Parameter], numbers: Sequence[float]) -> list[float]:
        """Sum the gradients of parameters, in place, and some numbers over all ranks.

        A missing gradient counts as zeros if another rank has one for the same parameter.

        Args:
            parameters: Parameters whose gradients are summed.
            numbers: Numbers to sum; the same count on every rank.

        Returns:
            Sums of the numbers.
        """
        if self.is_single:
            return list(numbers)
        first = parameters[0]
        there = [float(p.grad is not None) for p in parameters]
        flat = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
        small = torch.tensor([*there, *numbers], dtype=torch.float64, device=first.device)
        gradients, sums = self._add(torch.cat([*flat])), self._add(small).tolist()
        begin = 0
        for parameter, exists in zip(parameters, sums, strict=False):
            end = begin + parameter.numel()
            total = gradients[begin:end].view_as(parameter)
            # Fused optimizers pair raw memory, so a gradient must have its parameter's memory format.
            parameter.grad = torch.empty_like(parameter).copy_(total) if exists else None
            begin = end
        return sums[len(parameters) :]

    # ---------------------------------------------------------------- synchronisation

    def barrier(self) -> None:
        """Wait until all ranks have called this."""
        self.sum(torch.tensor(0))

    def gather_text(self, text: str) -> list[str]:
        """Gather a text from each rank, in the order of the ranks."""
        if self.is_single:
            return [text]
        rows = torch.tensor([[len(text.encode())]])
        letters, sizes = self.gather(torch.tensor(list(text.encode()), dtype=torch.uint8)), self.gather(rows).flatten()
        return [bytes(part.tolist()).decode() for part in letters.split(sizes.tolist())]

    def _add(self, values: Tensor) -> Tensor:
        dist.all_reduce(values)
        return values


def _packed(content: Any) -> Tensor:
    file = io.BytesIO()
    torch.save(content, file)
    return torch.frombuffer(file.getbuffer(), dtype=torch.uint8)


SINGLE_PROCESS = World()
