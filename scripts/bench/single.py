"""What one encoder costs in the place of both peers: python -m scripts.bench.single RUN [RUN ...].

Runs need test images whose class is known. Labels are read for the table alone.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from tabulate import tabulate
from torch import Tensor

from coft.core.errors import Parser, UserError
from coft.inference.export.comparing import choose_peers, words_for
from coft.inference.export.export_options import AVERAGE, BOTH, ExportOptions
from coft.inference.export.merging import Exported, parts_of
from coft.inference.export.sample import SIZE, sample, tested_in
from coft.inference.locate_model import find_model
from coft.inference.model import AdaptedModel
from coft.inference.predict import run_command
from coft.inference.sources import Source
from coft.inference.store import load
from coft.inference.stream import read_ahead
from scripts.paths import called_from

SINGLE = (AVERAGE, "a", "b")
Z = 1.96  # of a 95 % interval


class Loss(NamedTuple):
    """How many images fewer are right by one model than by another.

    Attributes:
        images: Right by the other alone, less right by the one alone.
        of: Images.
        low: Of the 95 % interval, in points of accuracy.
        high: Likewise.
    """

    images: int
    of: int
    low: float
    high: float


def loss(lost: int, won: int, count: int) -> Loss:
    """A loss with its interval for pairs: Agresti and Min's, which adds half an image to each cell.

    Args:
        lost: Images that the other model alone has right.
        won: Images that the one model alone has right.
        count: All images.
    """
    more, total = lost - won, count + 2
    spread = Z * math.sqrt(lost + won + 1 - more**2 / total) / total
    return Loss(more, count, 100 * (more / total - spread), 100 * (more / total + spread))


@torch.no_grad()
def classes_by(model: AdaptedModel, sources: list[Source]) -> dict[str, Tensor]:
    """Classes of images by both peers, as the run's model has them, and by each single encoder. Shape (n,) each.

    Raises:
        UserError: If an image cannot be read.
    """
    singles = {peers: Exported(parts_of(model, peers)).eval() for peers in SINGLE}
    classes: dict[str, list[Tensor]] = {name: [] for name in (BOTH, *SINGLE)}
    for batch in batches_of(model, sources):
        each = {peers: single(batch) for peers, single in singles.items()}
        each[BOTH] = (each["a"] + each["b"]) / 2
        for name, probabilities in each.items():
            classes[name].append(probabilities.argmax(dim=1))
    return {name: torch.cat(parts) for name, parts in classes.items()}


def batches_of(model: AdaptedModel, sources: list[Source]) -> Iterator[Tensor]:
    """Images as the encoders read them, shape (n, 3, size, size), some at a time."""
    read = read_ahead(model, sources, 2 * SIZE)
    while some := list(islice(read, SIZE)):
        views = [view for _, view in some if isinstance(view, Tensor)]
        if len(views) < len(some):
            name = next(source.shown for source, view in some if isinstance(view, str))
            raise UserError(f"{name}: cannot be read; put it back, or leave the run out")
        yield model.batch(views)


def row_of(run: Path) -> tuple[list[str], tuple[int, int, int]]:
    """A line of the table, and what the chosen encoder lost and won on how many images."""
    folder = find_model(run)
    model = load(folder, precision="fp32")
    labelled = tested_in(folder, model.classes)
    if not labelled or len(model.predictor.classifiers) < 2:
        raise UserError(
            f"{run}: has no pair of peers, or no test images whose class is known and which are still there; "
            f"leave it out"
        )
    best, _, _ = choose_peers(model, ExportOptions("open_clip", single=True), sample(model, folder, []))
    classes, labels = classes_by(model, list(labelled)), torch.tensor(list(labelled.values()))
    right = {name: predicted == labels for name, predicted in classes.items()}
    lost, won = (int((right[one] & ~right[other]).sum()) for one, other in ((BOTH, best), (best, BOTH)))
    singles = [f"{percent(right[peers])} ({percent(classes[peers] == classes[BOTH])})" for peers in SINGLE]
    counts = lost, won, len(labels)
    line = [str(run), f"{len(labels):,}", percent(right[BOTH]), *singles, words_for(model, best)]
    return [*line, shown(loss(*counts))], counts


def percent(hits: Tensor) -> str:
    """A share, in percent."""
    return f"{100 * float(hits.double().mean()):.1f}"


def shown(loss: Loss) -> str:
    """A loss, in words."""
    return f"{loss.images:+d} of {loss.of:,}: {100 * loss.images / loss.of:+.2f} [{loss.low:+.2f}, {loss.high:+.2f}]"


def measure() -> int:
    """Print the table."""
    parser = Parser(prog="python -m scripts.bench.single", description="What one encoder costs in the place of both.")
    parser.add_argument("runs", type=called_from, nargs="+", metavar="RUN")
    runs = parser.parse_args().runs
    rows, counts = zip(*(row_of(run) for run in runs), strict=True)
    headers = ["run", "test images", "both, %", "average (same class as both), %", "A", "B", "--single", "its loss"]
    print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))
    lost, won, count = (sum(column) for column in zip(*counts, strict=True))
    print(f"Together: {shown(loss(lost, won, count))} points")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(measure))
