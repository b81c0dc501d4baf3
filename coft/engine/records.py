"""Writers of a run's records: metrics by epoch, curves, and the table of results."""

from __future__ import annotations

import csv
import logging
import math
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from coft.core.files import replacing, write_table
from coft.core.untrusted import MISSING, read_text

log = logging.getLogger(__name__)
Row = dict[str, Any]
WHOLE = ("epoch", "kept", "of")  # columns of whole numbers; pandas writes 30.0 where other rows lack a value
STAGES = {"zero-shot": "zero-shot", "phase1": "after Phase I", "phase2": "after Phase II"}


class History:
    """Metrics by epoch, written to `metrics.csv` and read back by a resumed run.

    Args:
        folder: Folder in which `metrics.csv` is written.
        resume_from: Folder in which an earlier part of the run wrote its file; usually the same one.
        epochs_done: Number of finished epochs. Rows of later epochs are dropped, since these epochs are run again.
        is_main: Whether this process writes the file.
    """

    def __init__(self, folder: Path, resume_from: Path, epochs_done: int, is_main: bool = True) -> None:
        self.path, self.is_main = folder / "metrics.csv", is_main
        earlier = resume_from / "metrics.csv"
        self.rows: list[Row] = []
        self._columns: list[str] = []
        if epochs_done > 0:
            try:
                rows = csv.DictReader(read_text(earlier).splitlines())  # pandas may round the last bit
                self.rows = [row for row in map(_typed, rows) if row["epoch"] <= epochs_done]
                self._columns = list(rows.fieldnames or ())  # from the header, since rows lack the keys of empty cells
            except MISSING:
                return
            except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
                log.warning("%s cannot be read (%s): the curves begin with this run", earlier, error)

    def add(self, epoch: int, stage: str, **numbers: float) -> None:
        """Add a row without its NaN numbers, and write the file. Epochs count from 1; 0 is before training."""
        measured = {key: value for key, value in numbers.items() if not math.isnan(value)}
        self.rows.append({"epoch": epoch, "stage": stage, **measured})
        self._write(self.rows[-1])

    def amend(self, stage: str, **numbers: float) -> None:
        """Add numbers to the last row of a stage, if there is one, and write the file."""
        for row in [row for row in self.rows if row["stage"] == stage][-1:]:
            row.update(numbers)
            self._write(row)

    def _write(self, row: Row) -> None:
        self._columns = list(dict.fromkeys([*self._columns, *row]))
        if self.is_main:
            write_table(pd.DataFrame(self.rows, columns=self._columns), self.path)

    def stage(self, name: str) -> Row:
        """Return the last value of each number of a stage; empty if it has no row. Epochs may lack some numbers."""
        return {key: value for row in self.rows if row["stage"] == name for key, value in row.items()}


def results_table(history: History) -> str:
    """Return a text table of the accuracies and pseudo-labels of each stage."""
    lines = []
    for stage, title in STAGES.items():
        row = history.stage(stage)
        if row:
            accuracies = [row.get(f"accuracy_{who}") for who in ("peer_a", "peer_b", "both")]
            lines.append([title, *accuracies, _kept(row), _right(row), row.get("seconds")])
    headers = ["accuracy %", "peer A", "peer B", "both", "pseudo-labels kept", "of them right", "seconds"]
    columns = [i for i in range(len(headers)) if any(line[i] not in (None, "") for line in lines)]  # some need labels
    headers[0] = "accuracy %" if 1 in columns else "stage"
    lines, headers = [[line[i] for i in columns] for line in lines], [headers[i] for i in columns]
    return tabulate(lines, headers=headers, floatfmt=".1f", tablefmt="simple_outline", missingval="")


def _kept(row: Mapping[str, Any]) -> str:
    kept, of = row.get("kept"), row.get("of")
    return f"{kept:.0f} of {of:.0f}" if kept is not None and of is not None else ""


def _right(row: Mapping[str, Any]) -> str:
    precision = row.get("precision")
    return f"{100 * precision:.1f} %" if precision is not None and not math.isnan(precision) else ""


def _typed(row: Mapping[str, str]) -> Row:
    numbers = {key: float(value) for key, value in row.items() if value and key != "stage"}
    whole = {key: int(numbers[key]) for key in WHOLE if key in numbers}
    return {**numbers, **whole, "stage": row["stage"]}


def import_matplotlib() -> None:
    """Import matplotlib despite an invalid MPLBACKEND, which would otherwise fail a run after training has finished."""
    if "matplotlib" in sys.modules:
        return
    backend = os.environ.pop("MPLBACKEND", None)
    import matplotlib

    if backend is not None:
        os.environ["MPLBACKEND"] = backend
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = backend


def plot_curves(history: History, path: Path) -> None:
    """Draw accuracy, and coverage, precision and disagreement of pseudo-labels by epoch, as far as they are known."""
    import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    table = pd.DataFrame(history.rows)
    names = {"accuracy_peer_a": "peer A", "accuracy_peer_b": "peer B", "accuracy_both": "both"}
    shares = {name: name for name in ("coverage", "precision", "disagreement")}
    panels = [(names, "test accuracy, %"), (shares, "pseudo-labels, share")]
    panels = [panel for panel in panels if _known(table, panel[0])] or panels[1:]
    figure = Figure(figsize=(4.5 * len(panels), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    first = table.loc[table["stage"] == "phase2", "epoch"] if "stage" in table else ()
    for axes, (columns, title) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw(axes, table, columns, title)
        axes.set_xlabel("epoch")
        if len(first):
            axes.axvline(min(first) - 0.5, color="grey", linewidth=0.8, linestyle=":")
    with replacing(path) as draft:
        figure.savefig(draft, dpi=120)


def _known(table: pd.DataFrame, names: Iterable[str]) -> list[str]:
    return [column for column in names if column in table and table[column].notna().any()]


def _draw(axes: Any, table: pd.DataFrame, names: Mapping[str, str], title: str) -> None:
    for column in _known(table, names):
        points = table[["epoch", column]].dropna()
        axes.plot(points["epoch"], points[column], marker=".", label=names[column])
    axes.set_title(title, fontsize=10)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(frameon=False, fontsize=8)
