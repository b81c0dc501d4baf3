"""Confusion matrices between classes, as a table or, for many classes, as a list of the most frequent moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .formatting import short

MAX_TABLE_CLASSES = 25  # upper bound of the classes in a table
MAX_MOVES = 15  # upper bound of the moves that are listed


@dataclass(frozen=True)
class Map:
    """Confusion matrix: images by class before (rows) and after (columns).

    Attributes:
        title: Heading.
        before: Meaning of the rows.
        after: Meaning of the columns.
        names: Class names, by label.
        cells: Counts with their shares of the row, for each row; empty for more than `MAX_TABLE_CLASSES` classes.
        moved: Most frequent moves: class before, class after, number of images.
        share: Share of the images off the diagonal.
    """

    title: str
    before: str
    after: str
    names: list[str]
    cells: list[list[tuple[int, float]]]
    moved: list[tuple[str, str, int]]
    share: float


def make_map(title: str, before: tuple[str, pd.Series], after: tuple[str, pd.Series], classes: list[str]) -> Map | None:
    """Build a confusion matrix; None if no image has a known class on both sides.

    Args:
        title: Heading.
        before: Meaning of the rows, and the class of each image before.
        after: Meaning of the columns, and the class of each image after.
        classes: Class names, by label.
    """
    rows, columns = labels_of(before[1], after[1], classes)
    if not len(rows):
        return None
    cells = []
    if len(classes) <= MAX_TABLE_CLASSES:  # the matrix of very many classes does not fit into memory
        counts = confusion(before[1], after[1], classes)
        shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
        cells = [[(int(n), float(s)) for n, s in zip(*row, strict=True)] for row in zip(counts, shares, strict=True)]
    table = moves(before[1], after[1]).head(MAX_MOVES).itertuples(index=False)
    moved = [(short(old), short(new), int(images)) for old, new, images in table]
    share_off = 1 - float((rows == columns).sum()) / len(rows)
    return Map(title, before[0], after[0], [short(name, 40) for name in classes], cells, moved, share_off)


def moves(before: pd.Series, after: pd.Series) -> pd.DataFrame:
    """Count the images that moved from one class to another.

    Args:
        before: Class of each image before; "" if unknown. Shape (N,).
        after: Class of each image after; "" if unknown. Shape (N,).

    Returns:
        Table with the columns before, after, images; the most frequent move first.
    """
    pairs = pd.DataFrame({"before": before.to_numpy(), "after": after.to_numpy()})
    pairs = pairs[(pairs["before"] != "") & (pairs["after"] != "") & (pairs["before"] != pairs["after"])]
    counted = pairs.value_counts(["before", "after"]).rename("images").reset_index()
    return counted.sort_values(["images", "before", "after"], ascending=[False, True, True], ignore_index=True)


def confusion(before: pd.Series, after: pd.Series, classes: list[str]) -> np.ndarray:
    """Count images by class before (rows) and after (columns), without those of unknown class. Shape (C, C)."""
    rows, columns = labels_of(before, after, classes)
    flat = rows * len(classes) + columns
    return np.bincount(flat, minlength=len(classes) ** 2).reshape(len(classes), len(classes))


def labels_of(before: pd.Series, after: pd.Series, classes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels before and after of the images whose class is known on both sides. Shape (n,) each."""
    label_of = {name: label for label, name in enumerate(classes)}  # ImageNet has a duplicate name: the last label wins
    rows, columns = (series.map(label_of).to_numpy(dtype=float, na_value=np.nan) for series in (before, after))
    both_known = ~(np.isnan(rows) | np.isnan(columns))
    return rows[both_known].astype(int), columns[both_known].astype(int)
