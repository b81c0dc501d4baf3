"""Curves of numbers by epoch as lines of an SVG: what the page's template draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

WIDTH, HEIGHT = 360, 200  # of the area of the lines
TICKS = 4  # parts of an axis
PANELS = {
    "Test accuracy, %": {"accuracy_peer_a": "peer A", "accuracy_peer_b": "peer B", "accuracy_both": "both"},
    "Pseudo-labels, share": {
        "coverage": "kept by the filter",
        "precision": "right, of those kept",
        "disagreement": "peers disagree",
    },
}


@dataclass(frozen=True)
class Line:
    """A curve: its name, its points in the area, and its last value."""

    name: str
    points: list[tuple[float, float]]
    last: str

    @property
    def path(self) -> str:
        """The points as an SVG polyline has them."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


@dataclass(frozen=True)
class Panel:
    """Curves over the same axes.

    Attributes:
        title: What is drawn.
        lines: The curves.
        ticks_x: Places and texts.
        ticks_y: Likewise.
        phase2: Where Phase II begins, if it does.
    """

    title: str
    lines: list[Line]
    ticks_x: list[tuple[float, str]]
    ticks_y: list[tuple[float, str]]
    phase2: float | None


def panels(epochs: pd.DataFrame) -> list[Panel]:
    """The panels of metrics.csv; those without a number are left out."""
    if not len(epochs):
        return []
    table = epochs.assign(epoch=pd.to_numeric(epochs["epoch"], errors="coerce"))
    found = (_panel(title, table, names) for title, names in PANELS.items())
    return [panel for panel in found if panel is not None]


def _panel(title: str, table: pd.DataFrame, names: dict[str, str]) -> Panel | None:
    columns = {}
    for column in (column for column in names if column in table):
        values = pd.to_numeric(table[column], errors="coerce")
        points = pd.DataFrame({"epoch": table["epoch"], "value": values}).dropna()
        if len(points):
            columns[column] = points
    if not columns:
        return None
    everything = pd.concat(columns.values())
    first, last = float(table["epoch"].min()), max(float(table["epoch"].max()), float(table["epoch"].min()) + 1)
    low, high, step = nice_range(float(everything["value"].min()), float(everything["value"].max()))

    def place(epoch: float, value: float) -> tuple[float, float]:
        return WIDTH * (epoch - first) / (last - first), HEIGHT * (1 - (value - low) / (high - low))

    lines = []
    for column, points in columns.items():
        places = [place(*pair) for pair in zip(points["epoch"], points["value"], strict=True)]
        lines.append(Line(names[column], places, f"{points['value'].iloc[-1]:.4g}"))
    wide = max(1, round((last - first) / 8))
    ticks_x = [(place(first + n, low)[0], f"{first + n:.0f}") for n in range(0, int(last - first) + 1, wide)]
    levels = [low + n * step for n in range(round((high - low) / step) + 1)]
    ticks_y = [(place(first, level)[1], f"{level:.4g}") for level in levels]
    starts = table.loc[table["stage"] == "phase2", "epoch"]
    return Panel(title, lines, ticks_x, ticks_y, place(starts.min() - 0.5, low)[0] if len(starts) else None)


def nice_range(low: float, high: float) -> tuple[float, float, float]:
    """Round ends of an axis that holds two values, and the step between its ticks: 1, 2 or 5 times a power of ten."""
    wide = max(high - low, abs(high) * 0.01, 1e-3)
    power = 10.0 ** math.floor(math.log10(wide / TICKS))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * TICKS >= wide)
    start = step * (low // step)
    count = max(1, -int(-(high - start) // step))
    return start, start + step * count, step
