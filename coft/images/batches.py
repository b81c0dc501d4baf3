"""Batches of views of the unlabeled images: separate streams per model for training, all in order for labelling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from coft.core.progress import bar
from coft.core.seeding import derive, generator
from coft.core.world import SINGLE_PROCESS, World
from coft.images.unlabeled import UnlabeledPool
from coft.images.views import Inputs, View, label_view, normalize, view_of

Draw = tuple[str, int, int]  # name of the source, index of the image, number of its previous draws
ALL = "all"


@dataclass(frozen=True)
class Source:
    """Set of images from which a fixed number of each batch is drawn.

    Attributes:
        name: Name of the source. It is part of the random seed.
        index: Indices of the images. Shape (n,).
        size: Number of images per batch.
    """

    name: str
    index: Tensor
    size: int


@dataclass(frozen=True)
class DrawnBatch:
    """This rank's part of a model's batch.

    Attributes:
        index: Image indices of the whole batch. Shape (n,).
        position: Positions in `index` of this rank's images. Shape (m,).
        views: Views of this rank's images. Shape (m, ..., 3, size, size); None if it has no images.
    """

    index: Tensor
    position: Tensor
    views: Tensor | None


class ViewCache:
    """In-memory cache of views. New views are added as long as there is room, and never dropped.

    Args:
        room: Capacity in bytes.
    """

    def __init__(self, room: int = 256 << 20) -> None:
        self.room = room
        self.views: dict[tuple[str, int], Tensor] = {}

    def get(self, key: tuple[str, int], make: Callable[[], Tensor]) -> Tensor:
        """Return a view by its kind and seed. If it is not cached, make it, and keep it if there is room."""
        if key in self.views:
            return self.views[key]
        view = make()
        if view.nbytes <= self.room:
            self.room -= view.nbytes
            self.views[key] = view
        return view


@dataclass
class Views(Dataset):
    """Dataset of augmented views.

    A view is a function of the key, the image, and the number of its previous draws. Models that draw the same image
    under the same key get the same view.

    Attributes:
        pool: Pool of unlabeled images.
        kind: Name of the augmentation, for the cache.
        view: Augmentation.
        key: Random key: seed, epoch.
        kept: Cache of views; None disables caching.
        num_fixed_views: Number of distinct views per image, of which each draw takes one at random. 0 does not limit
            them.
        fixed_key: Random key of these views, in place of `key`; the same in all epochs.
    """

    pool: UnlabeledPool
    kind: str
    view: View
    key: Sequence[int | str]
    kept: ViewCache | None
    num_fixed_views: int = 0
    fixed_key: Sequence[int | str] = ()

    def __getitem__(self, draw: Draw) -> Tensor:
        _, image, before = draw
        if self.num_fixed_views:
            seed = derive(*self.fixed_key, image, derive(*self.key, *draw) % self.num_fixed_views)
        else:
            seed = derive(*self.key, image, before)

        def make() -> Tensor:
            with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
                torch.default_generator.manual_seed(seed)
                return self.view.rest(self.pool.prepared(image, self.view))

        return make() if self.kept is None else self.kept.get((self.kind, seed), make)


@dataclass
class UnlabeledImages:
    """Unlabeled images with loaders of their augmented batches.

    Attributes:
        pool: Pool of unlabeled images.
        inputs: Input size, normalization and augmentation.
        batch_size: Training batch size of each model.
        test_batch_size: Batch size for labelling, in views.
        num_workers: Number of worker processes that read images; 0 reads in this process.
        pin_memory: Whether batches are put into page-locked memory, which a GPU reads faster.
        world: Processes of the run. All ranks draw the same batches, and each reads its part of them.
        kept: Cache of views that are drawn repeatedly.
    """

    pool: UnlabeledPool
    inputs: Inputs
    batch_size: int = 32
    test_batch_size: int = 100
    num_workers: int = 0
    pin_memory: bool = False
    world: World = SINGLE_PROCESS
    kept: ViewCache = field(default_factory=ViewCache, repr=False)

    def __len__(self) -> int:
        return len(self.pool)

    @property
    def digest(self) -> str:
        """Hash over the contents of all images."""
        return self.pool.digest

    def steps(self, images: int) -> int:
        """Return the number of batches for a number of images. The last batch may be partial."""
        return -(-images // self.batch_size)

    def plain(self, index: Tensor | None = None, num_views: int = 1, key: Sequence[int | str] = ()) -> Iterator[Tensor]:
        """Yield batches of images in the plain view, or in several views.

        Args:
            index: Indices of the images, in the order to yield them. None yields all images.
            num_views: Number of views per image: the plain view and `num_views - 1` weak views.
            key: Random key of the weak views: seed, epoch.

        Yields:
            Views. Shape (n, 3, size, size), or (n, num_views, 3, size, size) for more than one view.
        """
        chosen = list(range(len(self))) if index is None else index.tolist()
        size = max(1, self.test_batch_size // num_views)
        draws = [(ALL, i, 0) for i in chosen]
        kind = "plain" if num_views == 1 else f"{num_views} views"
        view = view_of(self.inputs, ["plain"]) if num_views == 1 else label_view(self.inputs, num_views)
        batches = [draws[i : i + size] for i in range(0, len(draws), size)]
        kept = None if self.num_workers else self.kept  # each worker would fill a cache of its own
        views = Views(self.pool, kind, view, (*key, ALL), kept)
        yield from bar(self._loader(views, batches), "unlabeled images")

    def batches(
        self,
        kinds: Sequence[str],
        streams: Mapping[str, Sequence[Source]],
        steps: int,
        *key: int | str,
        num_fixed_views: int = 0,
        fixed_key: Sequence[int | str] = (),
    ) -> RankSampler:
        """Return a loader of training batches for several models, each with its own images and order.

        Args:
            kinds: Kinds of views of an image: keys of `coft.images.views.VIEWS`.
            streams: Sources of each model's batches, by model. A batch concatenates the draws of all its sources.
            steps: Number of batches. A source whose images run out starts again, in another order.
            *key: Random key of these batches: seed, epoch, and the trainer's name for other methods than CoFT.
            num_fixed_views: See `Views`.
            fixed_key: See `Views`.

        Returns:
            A loader that yields this rank's part of each batch.
        """
        draws = DrawSampler(streams, steps, key, self.world)
        # Views that are not fixed are kept for one epoch if several models may draw an image. Workers share no cache.
        kept = self.kept if num_fixed_views else ViewCache() if len(streams) > 1 else None
        kept = None if self.num_workers else kept
        views = Views(
            self.pool, " and ".join(kinds), view_of(self.inputs, kinds), key, kept, num_fixed_views, fixed_key
        )
        return RankSampler(self._loader(views, draws), draws)

    def _loader(self, views: Views, batches: Any) -> DataLoader:
        return DataLoader(
            views,
            batch_sampler=batches,
            num_workers=self.num_workers,
            collate_fn=partial(_collate, normalize(self.inputs)),
            pin_memory=self.pin_memory,
            generator=generator("loader"),  # by default, creating workers draws from the global generator
        )


@dataclass
class DrawSampler:
    """Batch sampler for one epoch. Draws are made one batch at a time, to save memory.

    Iterating yields this rank's part of each batch, the draws of all models in one list.

    Attributes:
        streams: Sources of each model's batches, by model.
        steps: Number of batches.
        key: Random key.
        world: Processes of the run, which split every batch.
    """

    streams: Mapping[str, Sequence[Source]]
    steps: int
    key: Sequence[int | str]
    world: World

    def __len__(self) -> int:
        return self.steps

    def whole(self) -> Iterator[dict[str, list[Draw]]]:
        """Yield the draws of whole batches, by model."""
        drawn = {
            model: [(endless_draws(s.name, s.index, derive(*self.key, s.name)), s.size) for s in streams if s.size]
            for model, streams in self.streams.items()
        }
        for _ in range(self.steps):
            yield {model: [next(d) for d, size in streams for _ in range(size)] for model, streams in drawn.items()}

    def __iter__(self) -> Iterator[list[Draw]]:
        for batch in self.whole():
            yield [draw for draws in batch.values() for draw in draws[self.world.part(len(draws))]]


@dataclass
class RankSampler:
    """Iterable over this rank's parts of the batches, by model.

    Attributes:
        loader: Loader of this rank's views.
        draws: Batch sampler of the loader.
    """

    loader: DataLoader
    draws: DrawSampler

    def __len__(self) -> int:
        return len(self.draws)

    def __iter__(self) -> Iterator[dict[str, DrawnBatch]]:
        for views, whole in zip(self.loader, self.draws.whole(), strict=True):
            batch, start = {}, 0
            for model, draws in whole.items():
                position = torch.arange(len(draws))[self.draws.world.part(len(draws))]
                mine = views[start : start + len(position)] if len(position) else None
                batch[model] = DrawnBatch(torch.tensor([draw[1] for draw in draws]), position, mine)
                start += len(position)
            yield batch


def endless_draws(name: str, index: Tensor, seed: int) -> Iterator[Draw]:
    """Yield draws of all images in random order, then again in another random order, without end."""
    source, before = torch.Generator().manual_seed(seed), 0
    while True:
        for position in torch.randperm(len(index), generator=source).tolist():
            yield name, int(index[position]), before
        before += 1


def _collate(numbers: Callable[[Tensor], Tensor], views: Sequence[Tensor]) -> Tensor:
    """Return the stacked, normalized views of a batch, which may have fewer images than there are processes."""
    return numbers(torch.stack(list(views))) if views else torch.empty(0)
