"""The paper's table, with methods as rows, data sets as columns and published figures below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tabulate import tabulate

from coft.core.files import replacing
from coft.core.words import counted
from scripts.paths import display_path

from .benchmark import NO_SEED, Benchmark, BySeed, Rows, Unit
from .methods import READS_LABELS
from .published import deviations
from .statistics import bootstrap_errors, interval
from .tables import BOLD, END, LATEX, MISSING, markdown

MEAN = "mean"
PLUS_MINUS = "\x03"  # placeholder for text that tabulate would escape
TEX = {BOLD: r"\textbf{", END: "}", PLUS_MINUS: r"$\pm$"}
MARKDOWN = {BOLD: "**", END: "**", PLUS_MINUS: "±"}


@dataclass(frozen=True)
class Cell:
    """An accuracy in the table.

    Attributes:
        mean: Mean accuracy in percent.
        half: Half the width of its 95 % interval; None for published figures.
        seeds: Number of seeds averaged over; 0 for deterministic methods.
    """

    mean: float
    half: float | None = None
    seeds: int = 1


@dataclass(frozen=True)
class Line:
    """A row of the table.

    Attributes:
        title: Name of the method.
        cells: Accuracies by data set, and their mean if there are all of them.
        labels: Whether the method reads labels.
        source: Reference of published figures; empty for ours.
    """

    title: str
    cells: Mapping[str, Cell]
    labels: bool = False
    source: str = ""

    @property
    def head(self) -> str:
        """Title in the table."""
        return f"{self.title} (published)" if self.source else self.title


def lines_of(benchmark: Benchmark, rows: Mapping[Unit, Rows], backbone: str) -> list[Line]:
    """Return the rows of a backbone's table: ours that have a result, then published ones."""
    units = {unit.dataset: of_unit for unit, of_unit in rows.items() if unit.backbone == backbone}
    lines = []
    for method in benchmark.methods:
        right = {name: of_unit.right[method.name] for name, of_unit in units.items() if method.name in of_unit.right}
        if right:
            lines.append(Line(method.name, _cells(right, list(units)), READS_LABELS.get(method.trainer, False)))
    for row in benchmark.published:
        cells = {name: Cell(value) for name, value in row.accuracy.items() if name in units}
        if row.backbone == backbone and cells:
            if len(cells) == len(units):
                cells[MEAN] = Cell(float(np.mean([cell.mean for cell in cells.values()])))
            lines.append(Line(row.name, cells, source=row.source))
    return lines


def _cells(right: Mapping[str, BySeed], datasets: Sequence[str]) -> dict[str, Cell]:
    """Return accuracies by data set, and their mean, with intervals over the images and seeds of these data sets."""
    cells, draws = dict[str, Cell](), list[NDArray[np.float64]]()
    for place, name in enumerate(datasets):
        if name in right:
            of_seeds = np.stack(list(right[name].values()))
            draws.append(100 * (1 - bootstrap_errors([[(of_seeds,)]], seed=place)[:, 0]))
            seeds = 0 if NO_SEED in right[name] else len(of_seeds)
            cells[name] = Cell(100 * float(of_seeds.mean()), _half_width(draws[-1]), seeds)
    if len(cells) == len(datasets):
        mean = float(np.mean([cell.mean for cell in cells.values()]))
        cells[MEAN] = Cell(mean, _half_width(np.mean(draws, axis=0)), min(cell.seeds for cell in cells.values()))
    return cells


def _half_width(draws: NDArray[np.float64]) -> float:
    low, high = interval(draws)
    return (high - low) / 2


# ---------------------------------------------------------------- files


def write_paper(
    path: Path, benchmark: Benchmark, rows: Mapping[Unit, Rows], called: str, remarks: Sequence[str]
) -> str:
    """Write the table as Markdown, CSV and LaTeX.

    Args:
        path: Path of the Markdown file; the others are written next to it.
        benchmark: Benchmark with the rows, data sets and published figures.
        rows: Results by unit.
        called: Command line that makes the table.
        remarks: Lines for the end of the Markdown file.

    Returns:
        The Markdown text, and the names of the files.
    """
    names = [name for name in benchmark.sets if any(unit.dataset == name for unit in rows)]
    names += [MEAN] if len(names) > 1 else []
    tables = {
        backbone: lines_of(benchmark, rows, backbone) for backbone in dict.fromkeys(unit.backbone for unit in rows)
    }
    ours = {
        (backbone, line.title, name): cell.mean
        for backbone, lines in tables.items()
        for line in lines
        if not line.source
        for name, cell in line.cells.items()
    }
    notes = [*deviations(benchmark.published, ours), *remarks]
    parts = [f"`{called}`"]
    for backbone, lines in tables.items():
        parts += [f"### {backbone}", as_markdown(benchmark, lines, names), caption(benchmark, lines, backbone)]
    text = "\n\n".join(parts) + "\n" + "".join(f"\n- {note}" for note in notes) + ("\n" if notes else "")
    texts = {
        ".md": text,
        ".csv": as_csv(tables).to_csv(index=False),
        ".tex": "\n".join(as_latex(benchmark, lines, names, backbone, called) for backbone, lines in tables.items()),
    }
    for suffix, content in texts.items():
        with replacing(path.with_suffix(suffix)) as draft:
            draft.write_text(content, encoding="utf-8")
    return "\n".join([text, *(f"  {display_path(path.with_suffix(suffix))}" for suffix in texts)])


def caption(benchmark: Benchmark, lines: Sequence[Line], backbone: str) -> str:
    """Return the caption of a table."""
    sources = dict.fromkeys(f"{line.title}: {line.source}" for line in lines if line.source)
    published = f" Published figures, not ours: {'; '.join(sources)}." if sources else ""
    seeds = counted(len(benchmark.seeds), "seed")
    return (
        f"Top-1 accuracy in percent, {backbone}, in CoOp's splits, whole training sets unlabeled; means of {seeds} (or "
        "as many as a bracket says), and half of the 95 % interval by bootstrap over test images and seeds. Methods of "
        f"others, and CoFT itself, are our reconstructions. Bold: the best of ours without labels.{published}"
    )


def _heads(benchmark: Benchmark, names: Sequence[str]) -> list[str]:
    return [benchmark.sets[name].title if name in benchmark.sets else name for name in names]


def _table(benchmark: Benchmark, lines: Sequence[Line], names: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """Return cells and column titles, with placeholders for text that differs between formats."""
    ours = [line for line in lines if not line.source and not line.labels]
    best = {name: max((line.cells[name].mean for line in ours if name in line.cells), default=None) for name in names}
    cells = []
    for line in lines:
        texts = []
        for name in names:
            cell = line.cells.get(name)
            bold = cell is not None and line in ours and cell.mean == best[name]
            texts.append(_text(cell, len(benchmark.seeds), bold))
        cells.append([line.head, *texts])
    return cells, ["method", *_heads(benchmark, names)]


def _text(cell: Cell | None, seeds: int, bold: bool) -> str:
    if cell is None:
        return MISSING
    text = f"{BOLD}{cell.mean:.1f}{END}" if bold else f"{cell.mean:.1f}"
    text += "" if cell.half is None else f" {PLUS_MINUS}{cell.half:.1f}"
    return text + (f" ({cell.seeds})" if cell.half is not None and 0 < cell.seeds < seeds else "")


def _replace_marks(text: str, marks: Mapping[str, str]) -> str:
    for mark, words in marks.items():
        text = text.replace(mark, words)
    return text


def as_markdown(benchmark: Benchmark, lines: Sequence[Line], names: Sequence[str]) -> str:
    """Format the table as Markdown."""
    cells, heads = _table(benchmark, lines, names)
    return markdown([[_replace_marks(cell, MARKDOWN) for cell in row] for row in cells], heads)


def as_latex(benchmark: Benchmark, lines: Sequence[Line], names: Sequence[str], backbone: str, called: str) -> str:
    """Format the table as LaTeX, for the package booktabs, with published figures below a rule."""
    cells, heads = _table(benchmark, lines, names)
    align = ["left", *["right"] * len(names)]
    body = tabulate(cells, heads, tablefmt=LATEX, disable_numparse=True, colalign=align).splitlines()
    ours = sum(not line.source for line in lines)
    if 0 < ours < len(lines):
        body.insert(body.index(r"\midrule") + 1 + ours, r"\midrule")
    words = _escaped(caption(benchmark, lines, backbone))
    head = [f"% {called}", r"\begin{table*}", r"\centering", rf"\caption{{{words}}}", r"\resizebox{\linewidth}{!}{%"]
    return _replace_marks("\n".join([*head, *body, "}", r"\end{table*}"]) + "\n", TEX)


def _escaped(text: str) -> str:
    for sign in r"&%$#_":
        text = text.replace(sign, f"\\{sign}")
    return text


def as_csv(tables: Mapping[str, Sequence[Line]]) -> pd.DataFrame:
    """Return a data frame with a line for each cell, in full precision."""
    rows = [
        {
            **{"backbone": backbone, "method": line.title, "dataset": name, "accuracy": cell.mean},
            **{"half_interval": cell.half, "seeds": cell.seeds or 1, "uses_labels": line.labels},
            **{"published": bool(line.source), "source": line.source},
        }
        for backbone, lines in tables.items()
        for line in lines
        for name, cell in line.cells.items()
    ]
    return pd.DataFrame(rows)
