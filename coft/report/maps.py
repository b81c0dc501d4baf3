"""Which classes are taken for which others: a confusion matrix as a table or, for many classes, as a picture."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from .formatting import short

AS_NUMBERS = 25  # most classes of a table; more become a picture
MOST = 1_000  # most classes of a picture
LISTED = 15  # most moves that are listed
BLUE = (0, 114, 178)


@dataclass(frozen=True)
class Map:
    """Images by class before (rows) and after (columns).

    Attributes:
        title: The heading.
        before: What the rows are.
        after: What the columns are.
        names: Class names.
        cells: For each row, counts with their share of the row; empty if there is a picture.
        picture: The picture as a data URI; empty if there are cells, or too many classes.
        moved: The most frequent moves: before, after, images.
        share: Share of the images that are off the diagonal.
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
    """Make a map; None if no image has a known class on both sides.

    Args:
        title: The heading.
        before: What the rows are, and the class of each image there.
        after: What the columns are, and the class of each image there.
        classes: Class names, by label.
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
    moved = [(short(old), short(new), int(images)) for old, new, images in table]
    share_off = 1 - float(np.trace(counts)) / total
    return Map(title, before[0], after[0], [short(name, 40) for name in classes], cells, picture, moved, share_off)


def draw(shares: np.ndarray) -> str:
    """A picture as a data URI, with a pixel for each share: the larger, the more opaque.

    Args:
        shares: Shares of each row. Shape (C, C).
    """
    opacity = (255 * np.sqrt(shares)).round().astype(np.uint8)
    colours = np.broadcast_to(np.array(BLUE, dtype=np.uint8), (*shares.shape, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.dstack([colours, opacity])).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def moves(before: pd.Series, after: pd.Series) -> pd.DataFrame:
    """Count the images that went from one class to another.

    Args:
        before: Class of each image before; "" is unknown. Shape (N,).
        after: Class of each image after; "" is unknown. Shape (N,).

    Returns:
        Columns before, after, images; the most frequent move first.
    """
    pairs = pd.DataFrame({"before": before.to_numpy(), "after": after.to_numpy()})
    pairs = pairs[(pairs["before"] != "") & (pairs["after"] != "") & (pairs["before"] != pairs["after"])]
    counted = pairs.value_counts(["before", "after"]).rename("images").reset_index()
    return counted.sort_values(["images", "before", "after"], ascending=[False, True, True], ignore_index=True)


def confusion(before: pd.Series, after: pd.Series, classes: list[str]) -> np.ndarray:
    """Count images by class before (rows) and after (columns); those of an unknown class are left out. Shape (C, C)."""
    label_of = {name: label for label, name in enumerate(classes)}  # ImageNet has a name twice
    rows, columns = (series.map(label_of).to_numpy(dtype=float, na_value=np.nan) for series in (before, after))
    both_known = ~(np.isnan(rows) | np.isnan(columns))
    flat = (rows[both_known] * len(classes) + columns[both_known]).astype(int)
    return np.bincount(flat, minlength=len(classes) ** 2).reshape(len(classes), len(classes))
