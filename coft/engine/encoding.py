"""Features of the unlabeled images: every rank encodes its part, and the main process collects them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
    encoders: Mapping[str, Encode], batches: Iterable[Mapping[str, Tensor]], parallel: Parallel
) -> Iterator[Rows]:
    """Encode batches with several models in parallel, in the precision of the surrounding autocast.

    Args:
        encoders: Encoders by model name.
        batches: Images by model name; a batch may lack some models. Shape (n, 3, size, size), or (n, num_views, 3,
            size, size).
        parallel: Runs the models in parallel.

    Yields:
        Features by model name. Shape (n, embed_dim) each.
    """
    for images in batches:

        def encode(name: str, images: Mapping[str, Tensor] = images) -> Tensor:
            return mean_features(encoders[name], images[name])

        yield parallel.map_without_gradients(encode, list(images))


def collect_features(parts: Iterator[Rows], counts: Mapping[str, int], world: World) -> Rows:
    """Collect the features that all ranks encode on the main process, a few batches at a time.

    Args:
        parts: Features of this rank's images by model, batch by batch.
        counts: Number of images over all ranks, by model.
        world: Processes of the run. Each encodes its part of the images.

    Returns:
        Features by model on the CPU, shape (N, embed_dim) each; empty on all ranks but the main process.
    """
    tables: Rows = {}
    starts = {name: [world.part(count, rank).start for rank in range(world.size)] for name, count in counts.items()}
    more = True
    while more:
        block = list(islice(parts, BLOCK))
        for name, count in counts.items():
            features = [part[name].cpu() for part in block if name in part]
            for rank, rows in enumerate(world.collect(torch.cat(features) if features else torch.empty(0, 0))):
                if len(rows):
                    if name not in tables:
                        tables[name] = _empty_table(count, rows)
                    start = starts[name][rank]
                    tables[name][start : start + len(rows)] = rows
                    starts[name][rank] += len(rows)
        more = bool(world.sum(torch.tensor(len(block))))
    return tables


def _empty_table(count: int, rows: Tensor) -> Tensor:
    size = count * rows.shape[1] * rows.dtype.itemsize
    dtype = rows.dtype if size <= MAX_FULL_PRECISION_BYTES else torch.float16
    return torch.empty(count, rows.shape[1], dtype=dtype)
