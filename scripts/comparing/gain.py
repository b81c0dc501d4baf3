"""Gain over zero-shot: on which pairs of data set and backbone adaptation without labels pays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from .figures import panels, write_figure
from .statistics import PAIR, ZERO_SHOT

OWN = "CoFT"  # how names of the project's own trainers begin
BLUE, ORANGE = "#0072B2", "#D55E00"  # of Okabe and Ito, which colour-blind eyes can separate; markers differ, too
MOST_COLUMNS = 4


def gain_over_zero_shot(summary: pd.DataFrame) -> pd.DataFrame:
    """Gains of the methods that use no label, on all pairs of data set and backbone that have a zero-shot result.

    Args:
        summary: As `statistics.summarise` makes it.

    Returns:
        Its lines but those of zero-shot itself (difference 0 without a spread), with a column `zero_shot`, in order
        of it; empty where there are fewer than two pairs.
    """
    known = summary[summary["difference"].notna() & (summary["labels_used"] == 0) & (summary["trainer"] != ZERO_SHOT)]
    gains = known.assign(zero_shot=known["mean"] - known["difference"]).sort_values("zero_shot", kind="stable")
    return gains if gains.groupby(PAIR).ngroups > 1 else gains.iloc[:0]


def turning_points(gains: pd.DataFrame) -> list[str]:
    """For each method a sentence that says where its gain is negative."""
    return [f"{method}: {_sentence(group)}" for method, group in gains.groupby("method", sort=False)]


def _sentence(group: pd.DataFrame) -> str:
    losses = group[group["difference"] < 0]
    low, high = group["zero_shot"].min(), group["zero_shot"].max()
    if losses.empty:
        return f"loses on none of {len(group)} pairs of data set and backbone (zero-shot {low:.1f} to {high:.1f} %)"
    last = losses.iloc[-1]
    where = f"{last['dataset']}, {last['backbone']}: {last['difference']:+.1f} at {last['zero_shot']:.1f} %"
    above = int((group["zero_shot"] > last["zero_shot"]).sum())
    rest = f"it loses on none of the {above} above" if above else "there is none above"
    return f"loses on {len(losses)} of {len(group)} pairs, the one with the highest zero-shot is {where}; {rest}"


def write_gain(path: Path, gains: pd.DataFrame) -> Path:
    """Draw the gain of each method over zero-shot, with its 95 % interval, a panel for each data set and backbone.

    Backbones are below each other where all of them have the same data sets, in at most `MOST_COLUMNS` columns.
    """
    order = gains.groupby("method")["difference"].mean().sort_values().index
    rows = {method: number for number, method in enumerate(order)}
    groups = list(gains.groupby(["backbone", "dataset"]))
    columns = min(MOST_COLUMNS, len(groups))

    def draw(figure: Any) -> None:
        grid = panels(figure, len(groups), columns, sharex=True, sharey=True)
        for number, (axes, ((backbone, dataset), group)) in enumerate(zip(grid, groups, strict=True)):
            _draw_panel(axes, group, rows)
            axes.set_title(f"{dataset}, {backbone}\nzero-shot {group['zero_shot'].iloc[0]:.1f} %", fontsize=8.5)
            axes.tick_params(labelbottom=number + columns >= len(groups))
        figure.supxlabel("gain over zero-shot, points; bars: 95 % interval over seeds", fontsize=9)

    height = 0.75 + 0.21 * len(rows)
    return write_figure(path, (1.9 + 1.85 * columns, 0.3 + height * -(-len(groups) // columns)), draw)


def _draw_panel(axes: Any, group: pd.DataFrame, rows: Mapping[str, int]) -> None:
    axes.axvline(0, color="black", linewidth=0.8)
    for row in group.to_dict("records"):
        own = str(row["trainer"]).startswith(OWN)
        interval = 0.0 if pd.isna(row["interval"]) else row["interval"]  # none of one seed
        axes.errorbar(
            row["difference"],
            rows[row["method"]],
            xerr=interval,
            color=BLUE if own else ORANGE,
            marker="o" if own else "s",
            markersize=5 if own else 4,
            capsize=2.5,
            linewidth=1.2,
        )
    axes.set_yticks(list(rows.values()), list(rows), fontsize=9)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(alpha=0.25)
