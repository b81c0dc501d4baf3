"""Images on which an export is compared with the run's model. Labels choose nothing; known ones say what it costs."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from coft.core.errors import UserError
from coft.core.experiment import saved_config
from coft.inference.model import AdaptedModel
from coft.inference.sources import Source, Sources
from coft.inference.stream import read_ahead

COUNT = 256
MOST = 100_000  # rows of a table that are looked at
TABLES = ("pseudo_labels.csv", "predictions.csv")  # of a run, in which its images are named
TESTED = "test_predictions.csv"  # of a run, with the classes that are known
SIZE = 32
Predict = Callable[[Tensor], Tensor]  # images as numbers to probabilities
Resolve = Callable[[str], Path]


@dataclass(frozen=True)
class Sample:
    """Images as a model sees them.

    Attributes:
        images: Shape (n, 3, size, size), at most `COUNT`; None if there are none that can be read.
        tested: Images whose class is known. Shape (m, 3, size, size), likewise.
        labels: Their classes. Shape (m,).
    """

    images: Tensor | None = None
    tested: Tensor | None = None
    labels: Tensor | None = None

    def halves(self) -> tuple[Sample, Sample]:
        """Every other image, and the rest; a single image is in both. Those whose class is known are in both."""
        if self.images is None or len(self.images) < 2:
            return self, self
        return replace(self, images=self.images[::2]), replace(self, images=self.images[1::2])


def sample(model: AdaptedModel, run: Path, images: list[str], resolve: Resolve = Path) -> Sample:
    """Take some images, evenly from all that there are.

    Args:
        model: Says how they are seen.
        run: Output folder of the run, or its model folder. Its own images are taken where none are named.
        images: What a user named.
        resolve: Says where a path of the user's is.
    """
    sources = list(Sources(images, resolve)) if images else of_run(run)
    known = tested_in(run, model.classes)
    tested, seen = views_of(model, list(known))
    labels = None if tested is None else torch.tensor([known[source] for source in seen])
    return Sample(views_of(model, sources)[0], tested, labels)


def views_of(model: AdaptedModel, sources: Sequence[Source]) -> tuple[Tensor | None, list[Source]]:
    """Images as numbers, shape (n, 3, size, size), and which these are; broken files are left out."""
    chosen = sources[:: every(len(sources))]
    read = [(source, view) for source, view in read_ahead(model, chosen, SIZE) if isinstance(view, Tensor)]
    views = [view for _, view in read]
    batches = [model.batch(views[i : i + SIZE]) for i in range(0, len(views), SIZE)]
    return torch.cat(batches) if batches else None, [source for source, _ in read]


def every(count: int) -> int:
    """Of so many images each how-manieth is taken, for at most `COUNT` of them."""
    return -(-count // COUNT) or 1


def of_run(run: Path) -> list[Source]:
    """Images that the tables of a run name, as far as they are still there."""
    for table in (place / name for place in (run, run.parent) for name in TABLES):
        if table.is_file():
            return of_paths(row["path"] for row in rows_of(table))
    return []


def of_paths(paths: Iterable[str]) -> list[Source]:
    """Files, as far as they are still there."""
    return [Source(path, Path(path)) for path in paths if Path(path).is_file()]


def tested_in(run: Path, classes: Sequence[str]) -> dict[Source, int]:
    """Labels of a run's images whose class is known, as far as they are still there."""
    labels = {name: label for label, name in enumerate(classes)}
    for folder in (run, run.parent):
        if (folder / TESTED).is_file():
            root = Path(str((saved_config(folder) or {}).get("DATASET.ROOT", "")))
            known = [(row["image"], labels[row["class"]]) for row in rows_of(folder / TESTED) if row["class"] in labels]
            found = {Source(name, root / name): label for name, label in known}
            return {source: label for source, label in found.items() if source.path.is_file()}
    return {}


def rows_of(table: Path) -> list[dict[str, str]]:
    """The first rows of a run's table.

    Raises:
        UserError: If it cannot be read, or has no image and class in it.
    """
    try:
        with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = list(itertools.islice(csv.DictReader(file), MOST))
    except (OSError, csv.Error) as error:
        raise UserError(f"{table}: cannot be read as a table ({error}); copy it again, or remove it") from error
    name = "image" if table.name == TESTED else "path"
    if any(not isinstance(row.get(column), str) for row in rows for column in (name, "class")):
        raise UserError(f"{table}: is damaged (a row without {name} or class); copy it again, or remove it")
    return rows


def agreement(one: Predict, other: Predict, images: Tensor) -> float:
    """Share of images, in percent, to which two models give the same class."""
    return 100 * float((classes_by(one, images) == classes_by(other, images)).double().mean())


def accuracy(predict: Predict, images: Tensor, labels: Tensor) -> float:
    """Share of images, in percent, whose class is right."""
    return 100 * float((classes_by(predict, images) == labels).double().mean())


def classes_by(predict: Predict, images: Tensor) -> Tensor:
    """The likeliest class of each image. Shape (n,)."""
    return torch.cat([predict(batch).argmax(dim=1) for batch in images.split(SIZE)])
