"""Encoding of the unlabeled images over all ranks: the split of the images, the models, views and precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice, zip_longest
from typing import Any

import torch
from torch import Tensor

from coft.backbones.backbone import ClassBackbone
from coft.core.parallel import Parallel
from coft.core.table import Table
from coft.core.threads import prefetch
from coft.core.world import World
from coft.labelling.protocol import Method

from .runtime import Runtime

BLOCK = 32  # batches that a rank encodes between two collective operations
MAX_FULL_PRECISION_BYTES = 1 << 30  # bytes up to which features keep their dtype; larger tables are stored in fp16

Encode = Callable[[Tensor], Tensor]
Rows = dict[str, Tensor]  # features by model


class PoolEncoder:
    """Encoder of the unlabeled images. Each rank encodes its part, and the main process gets all features.

    Args:
        images: Unlabeled images.
        clip: Frozen CLIP with the class names of the run.
        runtime: Device, precision and processes of the run.
        method: Method that has the encoders. A request names one of its Python methods, so that ranks exchange names
            only.
        parallel: Runs models in parallel.
        stages: Maps images to the input of the encoders; see `Engine.through_stages`.
    """

    def __init__(
        self,
        images: Any,
        clip: ClassBackbone,
        runtime: Runtime,
        method: Method,
        parallel: Parallel,
        stages: Callable[[Tensor], Tensor],
    ) -> None:
        self.images, self.clip, self.runtime, self.world = images, clip, runtime, runtime.world
        self.method, self.parallel, self.stages, self.device = method, parallel, stages, runtime.device
        self._of_clip: dict[int, Table] = {}

    def clip_features(self, num_views: int) -> Table:
        """Return the frozen CLIP's features of all images, averaged over views. Shape (N, embed_dim)."""
        if num_views not in self._of_clip:
            compute = partial(self.request, "", None, num_views)
            kept = self.clip.cached_features(self.images, num_views, self._view_key, lambda: compute()["clip"])
            self._of_clip[num_views] = Table.of(kept)
        return self._of_clip[num_views]

    def forget(self) -> None:
        """Drop the frozen CLIP's features, which are released unless the method keeps a table of them."""
        self._of_clip.clear()

    def request(self, encoders: str, index: dict[str, Tensor] | None, num_views: int) -> dict[str, Tensor]:
        """Have all ranks encode images. Called on the main process, which gets the features.

        Args:
            encoders: Name of the Python method of `method` that returns the encoders by model; "" for the frozen CLIP.
            index: Image indices by model; None for all images.
            num_views: Number of views per image.

        Returns:
            Features by model. Shape (n, embed_dim) each.
        """
        self.world.broadcast({"encoders": encoders, "index": index, "num_views": num_views})
        return self.answer(encoders, index, num_views)

    def answer(self, encoders: str, index: dict[str, Tensor] | None, num_views: int) -> dict[str, Tensor]:
        """Encode this rank's part of a request; see `request`."""
        models = getattr(self.method, encoders)() if encoders else {"clip": self.clip.encode}
        counts = dict.fromkeys(models, len(self.images)) if index is None else {n: len(i) for n, i in index.items()}
        with self.runtime.timed("labelling"), torch.no_grad(), self.runtime.autocast():
            batches = map(self._staged, prefetch(self._plain(models, index, num_views)))
            features = (self._encoded(models, batch) for batch in batches)
            return collect_features(features, counts, self.world)

    def _encoded(self, encoders: Mapping[str, Encode], images: Mapping[str, Tensor]) -> Rows:
        """Encode a batch with several models in parallel, in the precision of the surrounding autocast."""
        return self.parallel.map_without_gradients(lambda name: mean_features(encoders[name], images[name]), [*images])

    def _plain(
        self, models: Iterable[str], index: dict[str, Tensor] | None, num_views: int
    ) -> Iterator[dict[str, Tensor]]:
        """Yield batches of this rank's part of the images, by model."""
        key = self._view_key
        if index is None:
            part = None if self.world.is_single else torch.arange(len(self.images))[self.world.part(len(self.images))]
            for batch in self.images.plain(part, num_views, key):
                yield dict.fromkeys(models, batch.to(self.device))
            return
        parts = {name: images[self.world.part(len(images))] for name, images in index.items()}
        for batches in zip_longest(*(self.images.plain(images, num_views, key) for images in parts.values())):
            yield {name: batch for name, batch in zip(parts, batches, strict=True) if batch is not None}

    def _staged(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the encoder input for images, by model. It is computed once for a batch that several models share."""
        once: dict[int, Tensor] = {}
        for batch in images.values():
            if id(batch) not in once:
                once[id(batch)] = self.stages(batch)
        return {name: once[id(batch)] for name, batch in images.items()}

    @property
    def _view_key(self) -> tuple[int | str, ...]:
        """Random key of the weak views that labels are predicted from. It is the same in every labelling."""
        return self.runtime.seed, "labels", 0


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
                        small = count * rows.shape[1] * rows.dtype.itemsize <= MAX_FULL_PRECISION_BYTES
                        tables[name] = torch.empty(count, rows.shape[1], dtype=rows.dtype if small else torch.float16)
                    start = starts[name][rank]
                    tables[name][start : start + len(rows)] = rows
                    starts[name][rank] += len(rows)
        more = bool(world.sum(torch.tensor(len(block))))
    return tables
