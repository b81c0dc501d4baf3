"""Curves over the epochs, as SVG coordinates that the page's template draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

WIDTH, HEIGHT = 360, 200  # size of the plot area in SVG units
TICKS = 4  # approximate number of intervals on the y axis
MAX_MAGNITUDE = 1e15  # magnitude from which values are not drawn
PANELS = {  # names of the curves, by title of the panel and by column
    "Test accuracy, %": {"accuracy_peer_a": "peer A", "accuracy_peer_b": "peer B", "accuracy_both": "both"},
    "Pseudo-labels, %": {
        "coverage": "kept by the filter",
        "precision": "right, of those kept",
        "disagreement": "peers disagree",
    },
}


SHARES = PANELS["Pseudo-labels, %"]  # columns in [0, 1]; accuracies are in percent


@dataclass(frozen=True)
class Line:
    """Curve.

    Attributes:
        name: Name in the legend.
        points: SVG coordinates.
        last: Last value, as text.
    """

    name: str
    points: list[tuple[float, float]]
    last: str

    @property
    def path(self) -> str:
        """Points in the format of an SVG polyline."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


@dataclass(frozen=True)
class Panel:
    """Curves over the same axes.

    Attributes:
        title: Name and unit of the values.
        lines: The curves.
        ticks_x: SVG coordinate and label of each tick on the x axis.
        ticks_y: SVG coordinate and label of each tick on the y axis.
        phase2: SVG x coordinate at which Phase II begins; None without Phase II.
    """

    title: str
    lines: list[Line]
    ticks_x: list[tuple[float, str]]
    ticks_y: list[tuple[float, str]]
    phase2: float | None


def panels(epochs: pd.DataFrame) -> list[Panel]:
    """Return the panels of `metrics.csv`. A panel without numbers is left out."""
    if not len(epochs):
        return []
    table = epochs.assign(epoch=_numbers(epochs["epoch"]))
    drawn = (_panel(title, table, names) for title, names in PANELS.items())
    return [panel for panel in drawn if panel is not None]


def _numbers(column: pd.Series) -> pd.Series:
    """Convert a column to numbers. Values that cannot be drawn become NaN."""
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers.where(numbers.abs() < MAX_MAGNITUDE)


def _panel(title: str, table: pd.DataFrame, names: dict[str, str]) -> Panel | None:
    columns = {}
    for column in (column for column in names if column in table):
        values = _numbers(table[column]) * (100 if column in SHARES else 1)
        curve = pd.DataFrame({"epoch": table["epoch"], "value": values}).dropna()
        if len(curve):
            columns[column] = curve
    if not columns:
        return None
    all_points = pd.concat(columns.values())
    first, last = float(table["epoch"].min()), max(float(table["epoch"].max()), float(table["epoch"].min()) + 1)
    low, high, step = nice_range(float(all_points["value"].min()), float(all_points["value"].max()))

    def to_area(epoch: float, value: float) -> tuple[float, float]:
        return WIDTH * (epoch - first) / (last - first), HEIGHT * (1 - (value - low) / (high - low))

    lines = []
    for column, curve in columns.items():
        points = [to_area(*pair) for pair in zip(curve["epoch"], curve["value"], strict=True)]
        lines.append(Line(names[column], points, f"{curve['value'].iloc[-1]:.1f}"))
    ticks = range(0, int(last - first) + 1, max(1, round((last - first) / 8)))
    ticks_x = [(to_area(first + n, low)[0], f"{first + n:.0f}") for n in ticks]
    levels = [low + n * step for n in range(round((high - low) / step) + 1)]
    ticks_y = [(to_area(first, level)[1], f"{level:.4g}") for level in levels]
    starts = table.loc[table["stage"] == "phase2", "epoch"]
    return Panel(title, lines, ticks_x, ticks_y, to_area(starts.min() - 0.5, low)[0] if len(starts) else None)


def nice_range(low: float, high: float) -> tuple[float, float, float]:
    """Choose the range of an axis.

    Args:
        low: Smallest value to show.
        high: Largest value to show.

    Returns:
        Lower end, upper end, and the step between ticks, which is 1, 2 or 5 times a power of ten.
    """
    span = max(high - low, abs(high) * 0.01, 1e-3)
    power = 10.0 ** math.floor(math.log10(span / TICKS))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * TICKS >= span)
    start = step * (low // step)
    count = max(1, -int(-(high - start) // step))
    return start, start + step * count, step
