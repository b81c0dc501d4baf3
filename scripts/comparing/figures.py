"""Charts of comparisons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from coft.core.files import replacing
from coft.engine.records import import_matplotlib

from .methods import READS_LABELS
from .statistics import PAIR, ZERO_SHOT
from .tables import COLUMNS

DPI = 120
BAR = "#8fb3d9"
MOST = 100  # percent


def write_figure(path: Path, size: tuple[float, float], draw: Callable[[Any], None]) -> Path:
    """Draw a figure of a size in inches, and write it atomically."""
    import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    with replacing(path) as draft:
        figure.savefig(draft, dpi=DPI)
    return path


def panels(figure: Any, count: int, most: int, **settings: Any) -> Sequence[Any]:
    """Return `count` axes, at most `most` in a row. The settings go to matplotlib's `subplots`."""
    columns = min(count, most)
    grid = figure.subplots(-(-count // columns), columns, squeeze=False, **settings).flatten()
    for axes in grid[count:]:
        axes.remove()
    return list(grid[:count])


# ---------------------------------------------------------------- bars


def write_bars(path: Path, table: pd.DataFrame, value: str, label: str, title: str) -> Path:
    """Draw bars with 95 % intervals, with a panel for each data set and backbone.

    Args:
        path: Path of the image.
        table: Table with columns dataset, backbone, interval, and labels_used where known; bars of methods that use
            labels are hatched.
        value: Column of the values.
        label: Column of the names of the bars.
        title: Title of the axis.
    """
    groups = list(table.groupby(PAIR, sort=False))

    def draw(figure: Any) -> None:
        for axes, (pair, group) in zip(panels(figure, len(groups), 2), groups, strict=True):
            hatches = ["//" if uses_labels(row) else "" for row in group.to_dict("records")]
            errors = group["interval"].astype(float)  # NaN for a single seed
            bars = axes.barh(
                group[label], group[value], xerr=errors, hatch=hatches, capsize=3, color=BAR, edgecolor="#445"
            )
            axes.bar_label(bars, fmt=COLUMNS[value][1], padding=3, fontsize=8)
            axes.margins(x=0.2)  # for the labels
            axes.set_xticks([tick for tick in axes.get_xticks() if tick <= MOST])
            axes.invert_yaxis()
            axes.set_title(", ".join(map(str, pair)), fontsize=10)
            axes.set_xlabel(f"{title} (hatched: uses labels; dotted: zero-shot)" if "trainer" in group else title)
            axes.grid(axis="x", alpha=0.3)
            for level in group.loc[group["trainer"] == ZERO_SHOT, value] if "trainer" in group else ():
                axes.axvline(level, color="black", linewidth=0.8, linestyle=":")

    longest = max(len(group) for _, group in groups)
    return write_figure(path, (7.0 * min(len(groups), 2), (1.2 + 0.3 * longest) * -(-len(groups) // 2)), draw)


def uses_labels(row: Mapping[str, Any]) -> bool:
    """Return whether a result's method reads labels: by `labels_used`, or by its trainer if that is missing."""
    count = row.get("labels_used", 0)
    return READS_LABELS.get(str(row.get("trainer")), False) if pd.isna(count) else count > 0


# ---------------------------------------------------------------- gain over zero-shot

OURS = "CoFT"  # prefix of the names of the project's own trainers
BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito's palette, which is safe for colour-blindness; markers differ, too
MOST_COLUMNS = 4


def write_gain(path: Path, gains: pd.DataFrame) -> Path:
    """Draw the gain of each method over zero-shot, with its 95 % interval and a panel for each data set and backbone.

    Panels are sorted by backbone, in at most `MOST_COLUMNS` columns.
    """
    order = gains.groupby("method")["difference"].mean().sort_values().index
    rows = {method: number for number, method in enumerate(order)}
    groups = list(gains.groupby(["backbone", "dataset"]))
    columns = min(MOST_COLUMNS, len(groups))

    def draw(figure: Any) -> None:
        grid = panels(figure, len(groups), columns, sharex=True, sharey=True)
        for number, (axes, ((backbone, dataset), group)) in enumerate(zip(grid, groups, strict=True)):
            _draw_gains(axes, group, rows)
            axes.set_title(f"{dataset}, {backbone}\nzero-shot {group['zero_shot'].iloc[0]:.1f} %", fontsize=8.5)
            axes.tick_params(labelbottom=number + columns >= len(groups))
        figure.supxlabel("gain over zero-shot, points; bars: 95 % interval over seeds", fontsize=9)

    height = 0.75 + 0.21 * len(rows)
    return write_figure(path, (1.9 + 1.85 * columns, 0.3 + height * -(-len(groups) // columns)), draw)


def _draw_gains(axes: Any, group: pd.DataFrame, rows: Mapping[str, int]) -> None:
    axes.axvline(0, color="black", linewidth=0.8)
    for row in group.fillna({"interval": 0.0}).to_dict("records"):  # NaN for a single seed
        look = {"color": ORANGE, "marker": "s", "markersize": 4}
        if str(row["trainer"]).startswith(OURS):
            look = {"color": BLUE, "marker": "o", "markersize": 5}
        place = row["difference"], rows[row["method"]]
        axes.errorbar(*place, xerr=row["interval"], capsize=2.5, linewidth=1.2, **look)
    axes.set_yticks(list(rows.values()), list(rows), fontsize=9)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(alpha=0.25)
