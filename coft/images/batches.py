"""Batches of views of the unlabeled images: for training, each model its own; for labelling, all in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from coft.core.progress import bar
from coft.core.seeding import derive, generator
from coft.core.world import ALONE, World
from coft.images.unlabeled import UnlabeledPool
from coft.images.views import VIEWS, Inputs, View, for_labels, normalize
from coft.method.protocol import Batch

Draw = tuple[str, int, int]  # for which model, index of the image, number of the draw
ALL = "all"


class Views(Dataset):
    """Augmented views, each a function of the draw alone: of seed, epoch, model, image and number of the draw."""

    def __init__(self, pool: UnlabeledPool, view: View, *key: int | str) -> None:
        self.pool, self.view, self.key = pool, view, key

    def __getitem__(self, draw: Draw) -> tuple[Draw, Tensor]:
        with _seeded(derive(*self.key, *draw)):
            return draw, self.view.rest(self.pool.prepared(draw[1], self.view))


@dataclass
class UnlabeledImages:
    """The unlabeled images as a method sees them: `coft.method.protocol.Images`.

    Attributes:
        pool: The images.
        inputs: What CLIP reads.
        batch_size: Of training, for each model.
        test_batch_size: Of labelling.
        num_workers: Processes that read images; 0: none but this one.
        pin_memory: Whether batches are put where a GPU reads them faster.
        world: The processes of the run. All draw the same batches, and each reads its part of them.
    """

    pool: UnlabeledPool
    inputs: Inputs
    batch_size: int = 32
    test_batch_size: int = 100
    num_workers: int = 0
    pin_memory: bool = False
    world: World = ALONE

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
        view = VIEWS["plain"](self.inputs) if num_views == 1 else for_labels(self.inputs, num_views)
        loader = self._loader(Views(self.pool, view, *key), [draws[i : i + size] for i in range(0, len(draws), size)])
        for batch in bar(loader, "unlabeled images"):
            yield batch[ALL]["view"]

    def batches(
        self,
        view: str,
        index: Mapping[str, Tensor],
        steps: int,
        *key: int | str,
        sizes: Mapping[str, int] | None = None,
    ) -> Sequence[Batch]:
        """Batches for several models at once, each from its own images, in its own order, with its own augmentations.

        Args:
            view: A name of `VIEWS`.
            index: For each model's name, the images it is trained on.
            steps: Number of batches. A model whose images run out begins again, in another order.
            *key: Seed, phase, epoch: whatever makes these batches differ from others.
            sizes: How many images of a batch a name gets, where that is not the batch size. A name with 0 is left out.

        Returns:
            A loader of batches {model: {"index": shape (n,), "view": shape (n, 3, size, size)}}. Of several processes
            each has its part of them; see `coft.method.protocol.Part`.
        """
        own = sizes or {}
        counts = {name: min(own.get(name, self.batch_size), len(which)) for name, which in index.items()}
        seeds = {name: derive(*key, name) for name in index}
        draws = Draws(index, {name: count for name, count in counts.items() if count}, seeds, steps, self.world)
        loader = self._loader(Views(self.pool, VIEWS[view](self.inputs), *key), draws)
        return cast(Sequence[Batch], loader if self.world.alone else Parts(loader, draws))

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
        index: For each model's name, its images.
        counts: How many images of a batch each name gets.
        seeds: Of each name's order.
        steps: Number of batches.
        world: Its ranks have a part each of every batch.
    """

    def __init__(
        self, index: Mapping[str, Tensor], counts: Mapping[str, int], seeds: Mapping[str, int], steps: int, world: World
    ) -> None:
        self.index, self.counts, self.seeds, self.steps, self.world = index, counts, seeds, steps, world

    def __len__(self) -> int:
        return self.steps

    def whole(self) -> Iterator[dict[str, list[Draw]]]:
        """Draws of whole batches, by name."""
        streams = {name: endless_draws(name, self.index[name], self.seeds[name]) for name in self.counts}
        for _ in range(self.steps):
            yield {name: [next(streams[name]) for _ in range(count)] for name, count in self.counts.items()}

    def __iter__(self) -> Iterator[list[Draw]]:
        for batch in self.whole():
            yield [draw for own in batch.values() for draw in own[self.world.part(len(own))]]


class Parts:
    """Batches of which this process has a part, with the index of all their images.

    Args:
        loader: Of the parts.
        draws: Theirs.
    """

    def __init__(self, loader: DataLoader, draws: Draws) -> None:
        self.loader, self.draws = loader, draws

    def __len__(self) -> int:
        return len(self.draws)

    def __iter__(self) -> Iterator[Batch]:
        nothing = {"index": torch.empty(0, dtype=torch.long)}
        for part, whole in zip(self.loader, self.draws.whole(), strict=True):
            index = {name: torch.tensor([draw[1] for draw in own]) for name, own in whole.items()}
            yield {name: {**part.get(name, nothing), "batch": own} for name, own in index.items()}


def endless_draws(name: str, index: Tensor, seed: int) -> Iterator[Draw]:
    """Draw all images in random order, then all again in another, and so on."""
    source, number = torch.Generator().manual_seed(seed), 0
    while True:
        for position in torch.randperm(len(index), generator=source).tolist():
            yield name, int(index[position]), number
            number += 1


def _collate(numbers: Callable[[Tensor], Tensor], items: Sequence[tuple[Draw, Tensor]]) -> dict[str, Any]:
    """Group a batch by model, and turn its views into numbers."""
    batch: dict[str, Any] = {}
    for name in dict.fromkeys(draw[0] for draw, _ in items):
        mine = [(draw[1], view) for draw, view in items if draw[0] == name]
        index, views = zip(*mine, strict=True)
        batch[name] = {"index": torch.tensor(index), "view": numbers(torch.stack(views))}
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
