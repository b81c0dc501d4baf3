"""Loss of accuracy if one encoder replaces both peers: python -m scripts.bench.single RUN [RUN ...].

Runs need test images with known classes. Labels are read for the table only.
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
from coft.inference.export.comparing import choose_peers, peers_phrase
from coft.inference.export.export_options import AVERAGE, BOTH, ExportOptions
from coft.inference.export.merging import Exported, parts_of
from coft.inference.export.sample import SIZE, labels_of_test_images, sample
from coft.inference.locate_model import find_model
from coft.inference.model import AdaptedModel
from coft.inference.predict import run_command
from coft.inference.sources import Source
from coft.inference.store import load
from coft.inference.stream import read_ahead
from scripts.paths import called_from

SINGLE = (AVERAGE, "a", "b")
Z = 1.96  # normal quantile of a 95 % interval


class Loss(NamedTuple):
    """Number of images by which a model is worse than a reference model, with a 95 % interval.

    Attributes:
        images: Images that only the reference has right, minus images that only the model has right.
        of: Number of all images.
        low: Lower end of the 95 % interval, in points of accuracy.
        high: Upper end of the 95 % interval, in points of accuracy.
    """

    images: int
    of: int
    low: float
    high: float


def loss(lost: int, won: int, count: int) -> Loss:
    """Compute a loss with Agresti and Min's interval for matched pairs, which adds half an image to each cell.

    Args:
        lost: Number of images that only the reference has right.
        won: Number of images that only the model has right.
        count: Number of all images.
    """
    more, total = lost - won, count + 2
    spread = Z * math.sqrt(lost + won + 1 - more**2 / total) / total
    return Loss(more, count, 100 * (more / total - spread), 100 * (more / total + spread))


@torch.no_grad()
def classes_by(model: AdaptedModel, sources: list[Source]) -> dict[str, Tensor]:
    """Predict classes with both peers, as the run's model does, and with each single encoder. Shape (n,) each.

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
    """Yield batches of preprocessed images. Shape (n, 3, size, size).

    Raises:
        UserError: If an image cannot be read.
    """
    read = read_ahead(model, sources, 2 * SIZE)
    while some := list(islice(read, SIZE)):
        views = [view for _, view in some if isinstance(view, Tensor)]
        if len(views) < len(some):
            name = next(source.shown for source, view in some if isinstance(view, str))
            raise UserError(f"{name}: cannot be read; put it back, or leave the run out")
        yield model.batch(views)


def row_of(run: Path) -> tuple[list[str], tuple[int, int, int]]:
    """Return a row of the table, and the images that the chosen encoder lost, won, and was tested on."""
    folder = find_model(run)
    model = load(folder, precision="fp32")
    labelled = labels_of_test_images(folder, model.classes)
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
    line = [str(run), f"{len(labels):,}", percent(right[BOTH]), *singles, peers_phrase(model, best)]
    return [*line, format_loss(loss(*counts))], counts


def percent(hits: Tensor) -> str:
    """Format the share of hits in percent."""
    return f"{100 * float(hits.double().mean()):.1f}"


def format_loss(loss: Loss) -> str:
    """Format a loss."""
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
    print(f"Together: {format_loss(loss(lost, won, count))} points")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(measure))
