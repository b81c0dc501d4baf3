"""Charts of comparisons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from coft.core.files import replacing
from coft.engine.records import import_matplotlib

from .methods import rival
from .statistics import PAIR, ZERO_SHOT
from .tables import COLUMNS

DPI = 120


def write_bars(path: Path, table: pd.DataFrame, value: str, label: str, title: str) -> Path:
    """Draw bars with 95 % intervals, a panel for each data set and backbone.

    Args:
        path: The image.
        table: With dataset, backbone, interval, and labels_used where known: rows that use labels are hatched.
        value: The column that is drawn.
        label: The column that names the bars.
        title: What the axis says.
    """

    def draw(figure: Any) -> None:
        groups = list(table.groupby(PAIR, sort=False))
        for axes, (pair, group) in zip(panels(figure, len(groups), 2), groups, strict=True):
            hatches = ["//" if uses_labels(row) else "" for row in group.to_dict("records")]
            errors = group["interval"].astype(float)  # none of one seed
            bars = axes.barh(
                group[label], group[value], xerr=errors, hatch=hatches, capsize=3, color="#8fb3d9", edgecolor="#445"
            )
            axes.bar_label(bars, fmt=COLUMNS[value][1], padding=3, fontsize=8)
            axes.margins(x=0.2)
            axes.invert_yaxis()
            axes.set_title(", ".join(map(str, pair)), fontsize=10)
            axes.set_xlabel(f"{title} (hatched: uses labels; dotted: zero-shot)" if "trainer" in group else title)
            axes.grid(axis="x", alpha=0.3)
            _mark_zero_shot(axes, group, value)

    count = table.groupby(PAIR).ngroups
    longest = max(len(group) for _, group in table.groupby(PAIR))
    size = 7.0 * min(count, 2), (1.2 + 0.3 * longest) * -(-count // 2)
    return write_figure(path, size, draw)


def uses_labels(row: Mapping[str, Any]) -> bool:
    """Whether a result is of a method that reads labels: as it says, else as its trainer is known to."""
    used = row.get("labels_used", 0)
    known = rival(str(row.get("trainer")))
    return used > 0 if not pd.isna(used) else known is not None and not known.label_free


def _mark_zero_shot(axes: Any, group: pd.DataFrame, value: str) -> None:
    if "trainer" in group:
        for level in group.loc[group["trainer"] == ZERO_SHOT, value]:
            axes.axvline(level, color="black", linewidth=0.8, linestyle=":")


def panels(figure: Any, count: int, most: int, **settings: Any) -> Sequence[Any]:
    """So many axes, at most so many in a row; settings go to matplotlib's `subplots`."""
    columns = min(count, most)
    grid = figure.subplots(-(-count // columns), columns, squeeze=False, **settings).flatten()
    for axes in grid[count:]:
        axes.remove()
    return list(grid[:count])


def write_figure(path: Path, size: tuple[float, float], draw: Callable[[Any], None]) -> Path:
    """Make a figure (inches) and write it, whole or not at all."""
    import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    with replacing(path) as draft:
        figure.savefig(draft, dpi=DPI)
    return path
