"""Published figures of other authors, and the differences of our results to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coft.core.untrusted import read_text
from coft.core.yaml_text import parse_yaml
from scripts.launch import CONFIGS

FILE = CONFIGS / "published.yaml"
CLOSE = 1.0  # points by which results of the same set-up may differ


@dataclass(frozen=True)
class Published:
    """A row of published figures.

    Attributes:
        name: Name of the method, as its authors call it.
        row: Name of the corresponding row of ours.
        backbone: Name of the backbone.
        source: Reference to the publication.
        accuracy: Accuracy in percent, by data set.
        check: Whether our results should agree, because ours is not a reconstruction.
    """

    name: str
    row: str
    backbone: str
    source: str
    accuracy: Mapping[str, float]
    check: bool = False


def read_published() -> list[Published]:
    """Read all rows of configs/published.yaml."""
    return [Published(**entry) for entry in parse_yaml(read_text(FILE))]


def deviations(published: Sequence[Published], ours: Mapping[tuple[str, str, str], float]) -> list[str]:
    """Return a line for each of our results that should agree with a published figure, but differs.

    Args:
        published: Rows of published figures.
        ours: Our accuracies in percent, by backbone, row and data set.
    """
    lines = []
    for row in published:
        for dataset, figure in row.accuracy.items():
            accuracy = ours.get((row.backbone, row.row, dataset))
            if row.check and accuracy is not None and abs(accuracy - figure) > CLOSE:
                lines.append(
                    f"the set-up differs: {row.row} on {dataset}, {row.backbone}, is {accuracy:.1f} % here and "
                    f"{figure:.1f} published ({row.source}): {accuracy - figure:+.1f}"
                )
    return lines
