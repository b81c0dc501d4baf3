"""Which classes are taken for which others, as a table of numbers or, for many classes, a picture of it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from .groups import confusion, moves
from .words import short

AS_NUMBERS = 25  # classes, beyond which the numbers become a picture
MOST = 1_000  # classes of a picture
LISTED = 15  # of the most frequent moves
BLUE = (0, 114, 178)


@dataclass(frozen=True)
class Map:
    """Images by class before (rows) and after (columns).

    Attributes:
        title: What it shows.
        before: What the rows are.
        after: What the columns are.
        names: Of the classes.
        cells: For each row, numbers with their share of the row; empty where there is a picture.
        picture: As a data URI; empty where there are numbers, or too many classes.
        moved: The most frequent moves: before, after, images.
        share: Of the images off the diagonal.
    """

    title: str
    before: str
    after: str
    names: list[str]
    cells: list[list[tuple[int, float]]]
    picture: str
    moved: list[tuple[str, str, int]]
    share: float


def make_map(title: str, before: tuple[str, pd.Series], after: tuple[str, pd.Series], classes: list[str]) -> Map | None:
    """Make a map; None where no image is known on both sides.

    Args:
        title: What it shows.
        before: What the rows are, and the class of each image there.
        after: What the columns are, and likewise.
        classes: Names by label.
    """
    counts = confusion(before[1], after[1], classes)
    total = int(counts.sum())
    if not total:
        return None
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    cells, picture = [], ""
    if len(classes) <= AS_NUMBERS:
        cells = [[(int(n), float(s)) for n, s in zip(*row, strict=True)] for row in zip(counts, shares, strict=True)]
    elif len(classes) <= MOST:
        picture = draw(shares)
    table = moves(before[1], after[1]).head(LISTED).itertuples(index=False)
    moved = [(short(first), short(second), int(images)) for first, second, images in table]
    off = 1 - float(np.trace(counts)) / total
    return Map(title, before[0], after[0], [short(name, 40) for name in classes], cells, picture, moved, off)


def draw(shares: np.ndarray) -> str:
    """A picture with a pixel for each share, the more opaque the larger, as a data URI. Shape (C, C)."""
    opaque = (255 * np.sqrt(shares)).round().astype(np.uint8)
    colours = np.broadcast_to(np.array(BLUE, dtype=np.uint8), (*shares.shape, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.dstack([colours, opaque])).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
