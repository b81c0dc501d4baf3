"""Figures that are written completely or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from coft.core.files import replacing
from coft.engine.records import import_matplotlib

DPI = 120


def write_figure(path: Path, size: tuple[float, float], draw: Callable[[Any], None]) -> Path:
    """Draw a figure of a size in inches, and write it atomically."""
    import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    with replacing(path) as draft:
        figure.savefig(draft, dpi=DPI, format=path.suffix[1:])
    return path
