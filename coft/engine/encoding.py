"""Features of the unlabeled images: every process encodes its share, and the first one has them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.core.parallel import Parallel
from coft.core.world import World

BLOCK = 32  # batches that a process encodes before all bring theirs together
IN_FULL = 1 << 30  # bytes of a table of features; larger ones are kept in fp16

Encode = Callable[[Tensor], Tensor]
Rows = dict[str, Tensor]  # features by model


def mean_features(encode: Encode, images: Tensor) -> Tensor:
    """Features of images, or the mean of the features of several views of them.

    Logits and clean log-odds are linear in the features: those of the mean are the means of the views'.

    Args:
        encode: Images (n, 3, size, size) to features (n, embed_dim).
        images: Shape (n, 3, size, size), or (n, num_views, 3, size, size).

    Returns:
        Shape (n, embed_dim).
    """
    if images.dim() == 4:
        return encode(images)
    return encode(images.flatten(0, 1)).unflatten(0, images.shape[:2]).mean(dim=1)


def encode_batches(
    encoders: Mapping[str, Encode], batches: Iterator[Mapping[str, Tensor]], parallel: Parallel, device: str
) -> Iterator[Rows]:
    """Features of batches, by several models at the same time; in the precision of the autocast this is called in.

    Args:
        encoders: By name of the model.
        batches: Images of each model that has some. Shape (n, 3, size, size), or (n, num_views, 3, size, size).
        parallel: Runs the models at the same time.
        device: "cpu" or "cuda".

    Yields:
        Shape (n, embed_dim) each.
    """
    for images in batches:

        def encode(name: str, images: Mapping[str, Tensor] = images) -> Tensor:
            return mean_features(encoders[name], images[name])

        yield parallel.map_without_gradients(encode, list(images), device)


@torch.no_grad()
def encode_images(
    encoders: Sequence[nn.Module], images: Tensor, parallel: Parallel, dtype: torch.dtype | None
) -> list[Tensor]:
    """Features by each encoder, unit length, fp32. Shape (n, embed_dim) each.

    Args:
        encoders: On the device of the images.
        images: Shape (n, 3, size, size).
        parallel: Runs several encoders at the same time.
        dtype: Of the forward pass; None is fp32.
    """
    by_name = {str(number): encoder for number, encoder in enumerate(encoders)}

    def encode(name: str) -> Tensor:
        return F.normalize(by_name[name](images).float(), dim=-1)

    kind = images.device.type
    with torch.autocast(kind, dtype=dtype, enabled=dtype is not None):
        return list(parallel.map_without_gradients(encode, list(by_name), kind).values())


class Features:
    """Features of images, put together on the first process from what all of them encode, a few batches at a time.

    Args:
        counts: Images of all processes, by model.
        world: The processes; each has its part of the images.
    """

    def __init__(self, counts: Mapping[str, int], world: World) -> None:
        self.counts, self.world = counts, world
        self.tables: Rows = {}
        self._next = {name: [world.part(n, rank).start for rank in range(world.size)] for name, n in counts.items()}

    def take(self, parts: Iterator[Rows]) -> Rows:
        """Take in the features of all processes.

        Args:
            parts: Those of this process's images, by model, batch by batch.

        Returns:
            Shape (N, embed_dim) each, on the CPU; on other processes nothing.
        """
        more = True
        while more:
            block = list(islice(parts, BLOCK))
            for name in self.counts:
                rows = [part[name].cpu() for part in block if name in part]
                self._add(name, torch.cat(rows) if rows else torch.empty(0, 0))
            more = bool(self.world.sum(torch.tensor(len(block))))
        return self.tables

    def _add(self, name: str, rows: Tensor) -> None:
        for rank, part in enumerate(self.world.collect(rows)):
            if len(part):
                start = self._next[name][rank]
                self._next[name][rank] = start + len(part)
                self._table(name, part)[start : start + len(part)] = part

    def _table(self, name: str, rows: Tensor) -> Tensor:
        if name not in self.tables:
            self.tables[name] = torch.empty(self.counts[name], rows.shape[1], dtype=self._type(name, rows))
        return self.tables[name]

    def _type(self, name: str, rows: Tensor) -> torch.dtype:
        size = self.counts[name] * rows.shape[1] * rows.dtype.itemsize
        return rows.dtype if size <= IN_FULL else torch.float16
