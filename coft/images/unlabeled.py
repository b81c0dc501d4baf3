"""The unlabeled data sampler: images without labels, in an order that depends on nothing but their content.

A data set's files may be sorted by class, and their names may spell it. So images are known by their rank in the order
of their content hashes; every draw, tie and batch follows these ranks. Nothing in this file has seen a label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from coft.images.reading import IN_FULL, Decoding, decode_image, read_bytes
from coft.images.views import VIEWS, View, for_labels, normalize
from coft.method.seeding import derive, generator
from coft.runtime.errors import UserError
from coft.runtime.threads import map_threaded

Batch = dict[str, dict[str, Tensor]]
Draw = tuple[str, int, int]  # for whom, rank of the image, number of the draw


class UnlabeledPool:
    """Unlabeled images in the order of their content hashes.

    Args:
        paths: The image files, in any order.
        cache_bytes: Decoded images are kept in memory while they take up no more than this together.
        hashes: SHA-256 of files whose content is known already, by path: they are not read now, unless to be shrunk.
        decoding: How large images become.

    Attributes:
        paths: The image files by rank.
        order: For each rank, the position of the image in the `paths` that were given. Shape (N,).
        digest: One hash of all contents, to know the pool by. Same for the same images under other names.

    Raises:
        UserError: If there is no image, or one cannot be read.
    """

    def __init__(
        self,
        paths: Sequence[str],
        cache_bytes: int = 512 << 20,
        hashes: Mapping[str, str] | None = None,
        decoding: Decoding = IN_FULL,
    ) -> None:
        if not paths:
            raise UserError("no unlabeled images: the data set's training part is empty")
        self._cache: dict[str, np.ndarray] = {}
        self._prepared: dict[int, Image.Image] = {}
        self._room = cache_bytes
        self.decoding = decoding
        new = [path for path in paths if decoding.shorter or path not in (hashes or {})]
        read = map_threaded(self._take_in, new, "read images")
        known = {**(hashes or {}), **dict(zip(new, read, strict=True))}
        digests = [known[path] for path in paths]
        order = sorted(range(len(paths)), key=lambda i: digests[i])
        self.order = torch.tensor(order)
        self.paths = [paths[i] for i in order]
        self.digest = hashlib.sha256("".join(digests[i] for i in order).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, rank: int) -> Image.Image:
        """Return the image of a rank, RGB."""
        path = self.paths[rank]
        cached = self._cache.get(path)
        return decode_image(read_bytes(path), path, self.decoding) if cached is None else Image.fromarray(cached)

    def prepared(self, rank: int, view: View) -> Image.Image:
        """Return the image of a rank after a view's first stage; kept while there is room.

        All views that have such a stage must have the same, which INPUT.AUGMENT and INPUT.SIZE say.
        """
        if view.fixed is None:
            return self.image(rank)
        if rank in self._prepared:
            return self._prepared[rank]
        image = view.fixed(self.image(rank))
        taken = 4 * image.width * image.height  # Pillow keeps RGB in four bytes
        if taken <= self._room:
            self._room -= taken
            self._prepared[rank] = image
        return image

    def _take_in(self, path: str) -> str:
        """Hash a file; decode it as well, to know now whether it can be read, and keep it while there is room."""
        data = read_bytes(path)
        pixels = np.asarray(decode_image(data, path, self.decoding))
        if pixels.nbytes <= self._room:
            self._room -= pixels.nbytes
            self._cache[path] = pixels
        return hashlib.sha256(data).hexdigest()


class Views(Dataset):
    """Augmented views, each a function of the draw alone: of seed, epoch, peer, image and number of the draw."""

    def __init__(self, pool: UnlabeledPool, view: View, *key: int | str) -> None:
        self.pool, self.view, self.key = pool, view, key

    def __getitem__(self, draw: Draw) -> tuple[Draw, Tensor]:
        with _seeded(derive(*self.key, *draw)):
            return draw, self.view.rest(self.pool.prepared(draw[1], self.view))


def plain_batches(
    pool: UnlabeledPool, cfg: Any, ranks: Tensor | None = None, views: int = 1, key: Sequence[int | str] = ()
) -> DataLoader:
    """Batches of images as the test sees them, or in several views.

    Args:
        pool: The images.
        cfg: INPUT for the view, DATALOADER.TEST.BATCH_SIZE, DATALOADER.NUM_WORKERS.
        ranks: Which images, in which order; all in order of rank without it.
        views: With more than one, each image comes as the test sees it, and in so many less one weak views.
        key: What makes the weak views differ from others: seed, epoch.

    Returns:
        A loader of batches {"all": {"rank": shape (n,), "view": shape (n, 3, size, size), or (n, views, 3, size, size)
        with several}}.
    """
    chosen = list(range(len(pool))) if ranks is None else ranks.tolist()
    size = max(1, cfg.DATALOADER.TEST.BATCH_SIZE // views)
    draws = [("all", rank, 0) for rank in chosen]
    view = VIEWS["plain"](cfg) if views == 1 else for_labels(cfg, views)
    return _loader(Views(pool, view, *key), [draws[i : i + size] for i in range(0, len(draws), size)], cfg)


def peer_batches(
    pool: UnlabeledPool,
    cfg: Any,
    view: str,
    ranks: Mapping[str, Tensor],
    steps: int,
    *key: int | str,
    sizes: Mapping[str, int] | None = None,
) -> DataLoader:
    """Batches for several peers at once, each from its own images, in its own order, with its own augmentations.

    Args:
        pool: The images.
        cfg: INPUT for the view, DATALOADER.TRAIN_X.BATCH_SIZE (for each peer), DATALOADER.NUM_WORKERS.
        view: A name of `VIEWS`.
        ranks: For each peer's name, the images it is trained on.
        steps: Number of batches. A peer whose images run out begins again, in another order.
        *key: Seed, phase, epoch: whatever makes these batches differ from others.
        sizes: How many images of a batch a name gets, where that is not the batch size. A name with 0 is left out.

    Returns:
        A loader of batches {peer: {"rank": shape (n,), "view": shape (n, 3, size, size)}}.
    """
    size, own = cfg.DATALOADER.TRAIN_X.BATCH_SIZE, sizes or {}
    streams = {peer: endless_draws(peer, which, derive(*key, peer)) for peer, which in ranks.items()}
    counts = {peer: min(own.get(peer, size), len(which)) for peer, which in ranks.items()}
    batches = [[next(streams[p]) for p in streams for _ in range(counts[p])] for _ in range(steps)]
    return _loader(Views(pool, VIEWS[view](cfg), *key), batches, cfg)


def endless_draws(peer: str, ranks: Tensor, seed: int) -> Iterator[Draw]:
    """Draw all images in random order, then all again in another, and so on."""
    source, number = torch.Generator().manual_seed(seed), 0
    while True:
        for position in torch.randperm(len(ranks), generator=source).tolist():
            yield peer, int(ranks[position]), number
            number += 1


def _loader(views: Views, batches: list[list[Draw]], cfg: Any) -> DataLoader:
    return DataLoader(
        views,
        batch_sampler=batches,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=partial(_collate, normalize(cfg)),
        pin_memory=torch.cuda.is_available() and cfg.USE_CUDA,
        generator=generator("loader"),  # else making workers draws from the global generator
    )


def _collate(numbers: Callable[[Tensor], Tensor], items: Sequence[tuple[Draw, Tensor]]) -> Batch:
    """Group a batch by peer, and turn its views into numbers."""
    batch: Batch = {}
    for peer in dict.fromkeys(draw[0] for draw, _ in items):
        mine = [(draw[1], view) for draw, view in items if draw[0] == peer]
        ranks, views = zip(*mine, strict=True)
        batch[peer] = {"rank": torch.tensor(ranks), "view": numbers(torch.stack(views))}
    return batch


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator, which torchvision draws from, and give it back as it was."""
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(state)
