"""Images on which an export is compared with the run's model: no label is needed."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from coft.use.model import AdaptedModel
from coft.use.sources import Source, Sources
from coft.use.stream import read_ahead

COUNT = 256
TABLES = ("pseudo_labels.csv", "predictions.csv")  # of a run, in which its images are named
SIZE = 32
Predict = Callable[[Tensor], Tensor]  # images as numbers to probabilities


def sample(model: AdaptedModel, run: Path, images: list[str], resolve: Callable[[str], Path] = Path) -> Tensor | None:
    """Some images as the model sees them.

    Args:
        model: Says how.
        run: Output folder of the run, whose own images are taken where none are named.
        images: What a user named.
        resolve: Says where a path of the user's is.

    Returns:
        Shape (n, 3, size, size), at most `COUNT` of them; None if there are none that can be read.
    """
    sources = list(Sources(images, resolve)) if images else of_run(run)
    chosen = sources[:: -(-len(sources) // COUNT) or 1]  # evenly from all of them
    views = [view for _, view in read_ahead(model, chosen, SIZE) if isinstance(view, Tensor)]
    return torch.cat([model.batch(views[i : i + SIZE]) for i in range(0, len(views), SIZE)]) if views else None


def of_run(run: Path) -> list[Source]:
    """Images that the tables of a run name, as far as they are still there."""
    for table in (place / name for place in (run, run.parent) for name in TABLES):
        if table.is_file():
            with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
                paths = [row["path"] for row in itertools.islice(csv.DictReader(file), 100_000) if row.get("path")]
            return [Source(path, Path(path)) for path in paths if Path(path).is_file()]
    return []


def agreement(one: Predict, other: Predict, images: Tensor) -> float:
    """Share of images, in percent, to which two models give the same class."""
    same = [one(batch).argmax(dim=1) == other(batch).argmax(dim=1) for batch in images.split(SIZE)]
    return 100 * float(torch.cat(same).double().mean())
