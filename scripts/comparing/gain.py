"""Gain over zero-shot against zero-shot accuracy: from where on adaptation without labels pays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from .statistics import PAIR, ZERO_SHOT
from .tables import write_figure

COLOURS, MARKERS = 10, "os^Dv"  # colours come again with another marker
NEAR = 0.02  # of the axis: labels nearer to each other would overlap


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


def pair_labels(gains: pd.DataFrame) -> list[tuple[float, str]]:
    """Zero-shot accuracies with the names of the pairs that have them; pairs too near to tell apart share a label."""
    pairs = gains.drop_duplicates(PAIR).sort_values("zero_shot", kind="stable")
    near = NEAR * (pairs["zero_shot"].max() - pairs["zero_shot"].min())
    groups: list[tuple[float, list[str]]] = []
    for row in pairs.to_dict("records"):
        name = f"{row['dataset']}, {row['backbone']}"
        if groups and row["zero_shot"] - groups[-1][0] < near:
            groups[-1][1].append(name)
        else:
            groups.append((float(row["zero_shot"]), [name]))
    return [(zero_shot, "\n".join(names)) for zero_shot, names in groups]


def write_gain(path: Path, gains: pd.DataFrame) -> Path:
    """Draw each method's gain (with its standard deviation over seeds) against zero-shot accuracy."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for number, (method, group) in enumerate(gains.groupby("method", sort=False)):
            axes.errorbar(
                group["zero_shot"],
                group["difference"],
                yerr=group["std"].astype(float),  # none of one seed
                label=method,
                color=f"C{number % COLOURS}",
                marker=MARKERS[number // COLOURS % len(MARKERS)],
                capsize=3,
                linewidth=0.5,
            )
        axes.axhline(0, color="black", linewidth=0.8)
        for zero_shot, text in pair_labels(gains):
            axes.annotate(
                text,
                (zero_shot, 1.01),
                xycoords=("data", "axes fraction"),
                rotation=45,
                rotation_mode="anchor",
                verticalalignment="bottom",
                fontsize=7,
                color="grey",
            )
        axes.set_xlabel("zero-shot accuracy, %")
        axes.set_ylabel("gain over zero-shot, points")
        axes.grid(alpha=0.3)
        figure.legend(frameon=False, fontsize=8, loc="outside right upper")

    return write_figure(path, (10.0, 6.0), 1, draw)
