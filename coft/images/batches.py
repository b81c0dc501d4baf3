"""Batches of views of the unlabeled images: for training, each model its own; for labelling, all in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from coft.core.progress import bar
from coft.core.seeding import derive, generator
from coft.core.world import ALONE, World
from coft.images.unlabeled import UnlabeledPool
from coft.images.views import VIEWS, Inputs, View, label_view, normalize

Draw = tuple[str, int, int]  # from which stream, index of the image, how often it was drawn before
ALL = "all"


@dataclass(frozen=True)
class Source:
    """Images that a part of each batch is drawn from, so many at a time.

    Attributes:
        name: Of the random numbers.
        index: Which images. Shape (n,).
        size: How many of each batch.
    """

    name: str
    index: Tensor
    size: int


@dataclass(frozen=True)
class Drawn:
    """A process's part of a batch of a model.

    Attributes:
        index: Images of the whole batch. Shape (n,).
        position: Which of them are this process's. Shape (m,).
        views: Of these. Shape (m, ..., 3, size, size); None where there are none.
    """

    index: Tensor
    position: Tensor
    views: Tensor | None


class KeptViews:
    """Views that are drawn again, kept as long as there is room.

    Args:
        room: Bytes.
    """

    def __init__(self, room: int = 256 << 20) -> None:
        self.room = room
        self.views: dict[tuple[str, int], Tensor] = {}

    def get(self, key: tuple[str, int], make: Callable[[], Tensor]) -> Tensor:
        """A view by its kind and seed, made where it is not kept."""
        if key in self.views:
            return self.views[key]
        view = make()
        if view.nbytes <= self.room:
            self.room -= view.nbytes
            self.views[key] = view
        return view


class Views(Dataset):
    """Augmented views of images.

    A view is a function of the key, the image, and how often the image was drawn before. Models that draw the same
    image under the same key see the same view.

    Args:
        pool: The images.
        kind: How they are augmented, in a word.
        view: The same as a function.
        *key: Of the random numbers: seed, epoch.
        kept: Keeps them; None where none is drawn again.
        of_few: Where it is given, an image has `few` views alone, whose key this is; each draw takes one of them.
        few: How many.
    """

    def __init__(
        self,
        pool: UnlabeledPool,
        kind: str,
        view: View,
        *key: int | str,
        kept: KeptViews | None = None,
        of_few: Sequence[int | str] = (),
        few: int = 0,
    ) -> None:
        self.pool, self.kind, self.view, self.key = pool, kind, view, key
        self.kept, self.of_few, self.few = kept, of_few, few

    def __getitem__(self, draw: Draw) -> tuple[Draw, Tensor]:
        _, image, before = draw
        number = (*self.of_few, image, derive(*self.key, *draw) % self.few) if self.few else (*self.key, image, before)
        seed = derive(*number)

        def make() -> Tensor:
            with _seeded(seed):
                return self.view.rest(self.pool.prepared(image, self.view))

        return draw, make() if self.kept is None else self.kept.get((self.kind, seed), make)


@dataclass
class UnlabeledImages:
    """The unlabeled images, read and augmented.

    Attributes:
        pool: The images.
        inputs: What CLIP reads.
        batch_size: Of training, for each model.
        test_batch_size: Of labelling.
        num_workers: Processes that read images; 0: none but this one.
        pin_memory: Whether batches are put where a GPU reads them faster.
        world: The processes of the run. All draw the same batches, and each reads its part of them.
        kept: Views that are drawn again.
    """

    pool: UnlabeledPool
    inputs: Inputs
    batch_size: int = 32
    test_batch_size: int = 100
    num_workers: int = 0
    pin_memory: bool = False
    world: World = ALONE
    kept: KeptViews = field(default_factory=KeptViews, repr=False)

    def __len__(self) -> int:
        return len(self.pool)

    @property
    def digest(self) -> str:
        """One hash of all contents."""
        return self.pool.digest

    def steps(self, images: int) -> int:
        """Batches that so many images make, the last one perhaps not full."""
        return -(-images // self.batch_size)

    def plain(self, index: Tensor | None = None, num_views: int = 1, key: Sequence[int | str] = ()) -> Iterator[Tensor]:
        """Batches of images as the test sees them, or in several views.

        Args:
            index: Which images, in which order; all without it.
            num_views: With more than one, each image comes as the test sees it and in so many less one weak views.
            key: What makes the weak views differ from others: seed, epoch.

        Yields:
            Shape (n, 3, size, size), or (n, num_views, 3, size, size).
        """
        chosen = list(range(len(self))) if index is None else index.tolist()
        size = max(1, self.test_batch_size // num_views)
        draws = [(ALL, i, 0) for i in chosen]
        kind = "plain" if num_views == 1 else f"{num_views} views"
        view = VIEWS["plain"](self.inputs) if num_views == 1 else label_view(self.inputs, num_views)
        batches = [draws[i : i + size] for i in range(0, len(draws), size)]
        loader = self._loader(Views(self.pool, kind, view, *key, ALL, kept=self.kept), batches)
        for _, views in bar(loader, "unlabeled images"):
            yield views

    def batches(
        self,
        view: str,
        streams: Mapping[str, Sequence[Source]],
        steps: int,
        *key: int | str,
        of_few: Sequence[int | str] = (),
        few: int = 0,
    ) -> Parts:
        """Batches for several models at once, each from its own images, in its own order.

        Args:
            view: A name of `VIEWS`.
            streams: What each model's batches are drawn from, one stream after the other.
            steps: Number of batches. A stream whose images run out begins again, in another order.
            *key: Seed, phase, epoch: whatever makes these batches differ from others.
            of_few: See `Views`.
            few: See `Views`.

        Returns:
            A loader of batches, of which each process has its part.
        """
        draws = Draws(streams, steps, key, self.world)
        # Of an epoch, too, since a second model draws what the first has drawn; a worker would have a store of its own.
        kept = self.kept if few else KeptViews() if len(streams) > 1 and not self.num_workers else None
        views = Views(self.pool, view, VIEWS[view](self.inputs), *key, kept=kept, of_few=of_few, few=few)
        return Parts(self._loader(views, draws), draws)

    def _loader(self, views: Views, batches: Any) -> DataLoader:
        return DataLoader(
            views,
            batch_sampler=batches,
            num_workers=self.num_workers,
            collate_fn=partial(_collate, normalize(self.inputs)),
            pin_memory=self.pin_memory,
            generator=generator("loader"),  # else making workers draws from the global generator
        )


class Draws:
    """The draws of an epoch's batches, made one batch at a time: all of them together would fill the memory.

    Args:
        streams: Of each model.
        steps: Number of batches.
        key: Of the random numbers.
        world: Its ranks have a part each of every batch.
    """

    def __init__(
        self, streams: Mapping[str, Sequence[Source]], steps: int, key: Sequence[int | str], world: World
    ) -> None:
        self.streams, self.steps, self.key, self.world = streams, steps, key, world

    def __len__(self) -> int:
        return self.steps

    def whole(self) -> Iterator[dict[str, list[Draw]]]:
        """Draws of whole batches, by model."""
        drawn = {
            model: [(endless_draws(s.name, s.index, derive(*self.key, s.name)), s.size) for s in streams if s.size]
            for model, streams in self.streams.items()
        }
        for _ in range(self.steps):
            yield {model: [next(d) for d, size in streams for _ in range(size)] for model, streams in drawn.items()}

    def __iter__(self) -> Iterator[list[Draw]]:
        for batch in self.whole():
            yield [draw for draws in batch.values() for draw in draws[self.world.part(len(draws))]]


class Parts:
    """Batches of which this process has a part.

    Args:
        loader: Of the parts.
        draws: Theirs.
    """

    def __init__(self, loader: DataLoader, draws: Draws) -> None:
        self.loader, self.draws = loader, draws

    def __len__(self) -> int:
        return len(self.draws)

    def __iter__(self) -> Iterator[dict[str, Drawn]]:
        for (_, views), whole in zip(self.loader, self.draws.whole(), strict=True):
            batch, start = {}, 0
            for model, draws in whole.items():
                position = torch.arange(len(draws))[self.draws.world.part(len(draws))]
                mine = views[start : start + len(position)] if len(position) else None
                batch[model] = Drawn(torch.tensor([draw[1] for draw in draws]), position, mine)
                start += len(position)
            yield batch


def endless_draws(name: str, index: Tensor, seed: int) -> Iterator[Draw]:
    """Draw all images in random order, then all again in another, and so on."""
    source, before = torch.Generator().manual_seed(seed), 0
    while True:
        for position in torch.randperm(len(index), generator=source).tolist():
            yield name, int(index[position]), before
        before += 1


def _collate(numbers: Callable[[Tensor], Tensor], items: Sequence[tuple[Draw, Tensor]]) -> tuple[list[int], Tensor]:
    """Indices of a batch, and its views as numbers."""
    if not items:  # a batch has fewer images than there are processes
        return [], torch.empty(0)
    draws, views = zip(*items, strict=True)
    return [draw[1] for draw in draws], numbers(torch.stack(views))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator, which torchvision draws from, and give it back as it was."""
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(state)
