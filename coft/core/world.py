"""Several processes that make one run: which images are whose, and what they exchange.

Images are dealt out by index, in blocks: rank 0 has the first ones. Each process encodes its own. What is decided of
all images is decided by the first process, and sent to the others.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

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
        """Whether this is the process that decides, writes files and speaks to people."""
        return self.rank == 0

    def part(self, count: int, rank: int | None = None) -> slice:
        """Which of so many images are this rank's, or another one's. Those that are first have one more, if any."""
        place = self.rank if rank is None else rank
        return slice(-(-count * place // self.size), -(-count * (place + 1) // self.size))

    # ---------------------------------------------------------------- numbers of all ranks

    def sum(self, values: Tensor) -> Tensor:
        """Sum of all ranks' numbers, the same on each. Shape as `values`."""
        return values if self.alone else self._add(values.detach().clone())

    def gather(self, rows: Tensor) -> Tensor:
        """Put the rows of all ranks together, in the order of the ranks, on each of them.

        Args:
            rows: This rank's, shape (n,) or (n, k). Others may have more or fewer, or an empty tensor of any width.

        Returns:
            Shape (N,) or (N, k).
        """
        if self.alone:
            return rows
        sizes, sent = self._alike(rows)
        parts = [torch.empty_like(sent) for _ in sizes]
        with _Waiting(self, sent):
            dist.all_gather(parts, sent)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]).to(rows.dtype)

    def collect(self, rows: Tensor) -> list[Tensor]:
        """Give the rows of all ranks, on the CPU, to the first one; as `gather` takes them.

        Returns:
            Those of each rank, on the first one; nothing on the others.
        """
        if self.alone:
            return [rows]
        sizes, sent = self._alike(rows)
        parts = [torch.empty_like(sent) for _ in sizes] if self.writes else None
        with _Waiting(self, sent):
            dist.gather(sent, parts, dst=0)
        return [part[:size] for part, size in zip(parts or [], sizes, strict=False)]

    def _alike(self, rows: Tensor) -> tuple[list[int], Tensor]:
        """How many rows each rank has, and this rank's with others after them: of one shape and type on all ranks."""
        shapes = torch.zeros(self.size, 3, dtype=torch.long)
        if len(rows):
            shapes[self.rank] = torch.tensor([len(rows), math.prod(rows.shape[1:]), rows.dtype is torch.float64])
        sizes, width, double = self._add(shapes).unbind(dim=1)
        dtype = torch.uint8 if rows.dtype is torch.bool else torch.float64 if double.any() else rows.dtype
        shape = (int(sizes.max()), int(width.max())) if rows.dim() > 1 else (int(sizes.max()),)
        sent = torch.zeros(shape, dtype=dtype, device=rows.device)
        sent[: len(rows)] = rows.detach() if len(rows) else sent[:0]
        return sizes.tolist(), sent

    # ---------------------------------------------------------------- what the first rank says

    def broadcast(self, content: Any) -> Any:
        """Send what the first rank says to all others.

        Args:
            content: Tensors and plain containers; of other ranks it is not looked at.
        """
        if self.alone:
            return content
        data = _packed(content) if self.writes else torch.empty(0, dtype=torch.uint8)
        size = torch.tensor(len(data))
        with _Waiting(self, size):
            dist.broadcast(size, src=0)
            data = data if self.writes else torch.empty(int(size), dtype=torch.uint8)
            dist.broadcast(data, src=0)
        return content if self.writes else torch.load(io.BytesIO(data.numpy().tobytes()), weights_only=True)

    @torch.no_grad()
    def align(self, tensors: Iterable[Tensor]) -> None:
        """Give all ranks the numbers of the first one, in place."""
        if self.alone:
            return
        for tensor in tensors:
            same = tensor.detach().contiguous()
            with _Waiting(self, same):
                dist.broadcast(same, src=0)
            tensor.copy_(same)

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
        gradients, sums = self._add(torch.cat([*flat])), self._add(small).tolist()
        begin = 0
        for parameter, exists in zip(parameters, sums, strict=False):
            end = begin + parameter.numel()
            parameter.grad = gradients[begin:end].view_as(parameter).to(parameter.dtype) if exists else None
            begin = end
        return sums[len(parameters) :]

    # ---------------------------------------------------------------- order

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self.sum(torch.tensor(0))

    def all_say(self, text: str) -> list[str]:
        """What each rank says, in the order of the ranks."""
        if self.alone:
            return [text]
        rows = torch.tensor([[len(text.encode())]])
        letters, sizes = self.gather(torch.tensor(list(text.encode()), dtype=torch.uint8)), self.gather(rows).flatten()
        return [bytes(part.tolist()).decode() for part in letters.split(sizes.tolist())]

    def _add(self, values: Tensor) -> Tensor:
        with _Waiting(self, values):
            dist.all_reduce(values)
        return values


def _packed(content: Any) -> Tensor:
    file = io.BytesIO()
    torch.save(content, file)
    return torch.frombuffer(file.getbuffer(), dtype=torch.uint8)


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
