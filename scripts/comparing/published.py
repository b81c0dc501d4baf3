"""Figures that others have published, and how far ours are from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coft.core.outside import read_text
from coft.core.yaml_text import parse_yaml
from scripts.launch import CONFIGS

FILE = CONFIGS / "published.yaml"
CLOSE = 1.0  # points by which figures of the same set-up may differ


@dataclass(frozen=True)
class Published:
    """A row of figures.

    Attributes:
        name: What its authors call it.
        row: The row of ours that it is of.
        backbone: Its backbone.
        source: Where it stands.
        accuracy: Percent, by data set.
        check: Whether ours should be the same: what is compared is no reconstruction.
    """

    name: str
    row: str
    backbone: str
    source: str
    accuracy: Mapping[str, float]
    check: bool = False


def read_published() -> list[Published]:
    """All rows of the file."""
    return [Published(**entry) for entry in parse_yaml(read_text(FILE))]


def far_off(published: Sequence[Published], ours: Mapping[tuple[str, str, str], float]) -> list[str]:
    """Where ours differ from figures that they should be the same as, a line each.

    Args:
        published: Rows.
        ours: Percent, by backbone, row and data set.
    """
    lines = []
    for row in published:
        for dataset, figure in row.accuracy.items():
            mine = ours.get((row.backbone, row.row, dataset))
            if row.check and mine is not None and abs(mine - figure) > CLOSE:
                lines.append(
                    f"the set-up differs: {row.row} on {dataset}, {row.backbone}, is {mine:.1f} % here and "
                    f"{figure:.1f} published ({row.source}): {mine - figure:+.1f}"
                )
    return lines
