"""Features of the unlabeled images: every rank encodes its part, and the main process collects them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice

import torch
from torch import Tensor

from coft.core.parallel import Parallel
from coft.core.world import World

BLOCK = 32  # batches that a rank encodes between two collective operations
MAX_FULL_PRECISION_BYTES = 1 << 30  # bytes up to which features keep their dtype; larger tables are stored in fp16

Encode = Callable[[Tensor], Tensor]
Rows = dict[str, Tensor]  # features by model


def mean_features(encode: Encode, images: Tensor) -> Tensor:
    """Return the features of images, averaged over views if there are several.

    Logits and clean log-odds are linear in the features, so averaging features averages the views' logits and log-odds.

    Args:
        encode: Maps images (n, 3, size, size) to features (n, embed_dim).
        images: Images. Shape (n, 3, size, size), or (n, num_views, 3, size, size).

    Returns:
        Features. Shape (n, embed_dim).
    """
    if images.dim() == 4:
        return encode(images)
    return encode(images.flatten(0, 1)).unflatten(0, images.shape[:2]).mean(dim=1)


def encode_batches(
    encoders: Mapping[str, Encode], batches: Iterator[Mapping[str, Tensor]], parallel: Parallel, device: str
) -> Iterator[Rows]:
    """Encode batches with several models in parallel, in the precision of the surrounding autocast.

    Args:
        encoders: Encoders by model name.
        batches: Images by model name; a batch may lack some models. Shape (n, 3, size, size), or (n, num_views, 3,
            size, size).
        parallel: Runs the models in parallel.
        device: "cpu" or "cuda".

    Yields:
        Features by model name. Shape (n, embed_dim) each.
    """
    for images in batches:

        def encode(name: str, images: Mapping[str, Tensor] = images) -> Tensor:
            return mean_features(encoders[name], images[name])

        yield parallel.map_without_gradients(encode, list(images), device)


class Features:
    """Feature tables on the main process, assembled from the parts that all ranks encode, a few batches at a time.

    Args:
        counts: Number of images over all ranks, by model.
        world: Processes of the run. Each encodes its part of the images.
    """

    def __init__(self, counts: Mapping[str, int], world: World) -> None:
        self.counts, self.world = counts, world
        self.tables: Rows = {}
        self._next = {name: [world.part(n, rank).start for rank in range(world.size)] for name, n in counts.items()}

    def take(self, parts: Iterator[Rows]) -> Rows:
        """Collect the features of all ranks.

        Args:
            parts: Features of this rank's images by model, batch by batch.

        Returns:
            Features by model on the CPU, shape (N, embed_dim) each; empty on all ranks but the main process.
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
        return rows.dtype if size <= MAX_FULL_PRECISION_BYTES else torch.float16
