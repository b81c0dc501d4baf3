"""Tables of comparisons, for people (terminal, Markdown, LaTeX) and for programs (CSV)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from coft.core.files import replacing

MISSING = "-"
# Column -> title and format; a table shows those of its columns that are here and not empty, in this order.
COLUMNS = {
    "dataset": ("data set", "{}"),
    "backbone": ("backbone", "{}"),
    "method": ("method", "{}"),
    "variant": ("change", "{}"),
    "seeds": ("seeds", "{:.0f}"),
    "mean": ("mean %", "{:.1f}"),
    "phase1": ("Phase I %", "{:.1f}"),
    "phase1_change": ("to full's", "{:+.2f}"),
    "phase1_std": ("its std", "{:.2f}"),
    "phase2": ("Phase II %", "{:.1f}"),
    "final": ("accuracy %", "{:.1f}"),
    "change": ("difference", "{:+.2f}"),
    "std": ("std", "{:.2f}"),
    "interval": ("± 95 %", "{:.2f}"),
    "difference": ("to zero-shot", "{:+.1f}"),
    "between": ("± 95 % over pairs", "{:.1f}"),
    "single": ("single peer %", "{:.1f}"),
    "ensemble": ("ensemble", "{:.0f}"),
    "labels_used": ("labels used", "{:,.0f}"),
    "coverage": ("labels kept", "{:.0%}"),
    "precision": ("of them right", "{:.1%}"),
    "auroc_p_clean": ("AUROC of p_clean", "{:.3f}"),
    "auroc_confidence": ("of the softmax", "{:.3f}"),
    "seconds": ("seconds", "{:.0f}"),
}
TEXT = {"dataset", "backbone", "method", "variant"}
OURS = ("overall.csv", "overall.tex", "bars.png", "gain.png")
Tables = Mapping[str, pd.DataFrame]


def render(table: pd.DataFrame, style: str = "github") -> str:
    """A table as text.

    Args:
        table: Columns named as in COLUMNS.
        style: A format of the package tabulate: github, latex_booktabs ...
    """
    names = [name for name in COLUMNS if name in table and table[name].notna().any()]
    rows = [[_cell(name, value) for name, value in zip(names, row, strict=True)] for row in table[names].values]
    align = ["left" if name in TEXT else "right" for name in names]
    titles = [COLUMNS[name][0] for name in names]
    if style == "github":
        rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return tabulate(rows, titles, tablefmt=style, disable_numparse=True, colalign=align)


def _cell(name: str, value: Any) -> str:
    if pd.isna(value):
        return MISSING
    return plain_zero(COLUMNS[name][1].format(value))


def plain_zero(text: str) -> str:
    """A number as text, with a plus where it says "-0.0"."""
    return "+" + text[1:] if text.startswith("-") and not text.strip("-0.%") else text


def titled(tables: Tables) -> str:
    """Tables as text, under their titles where there are several."""
    parts = [f"{title}\n\n{render(table)}" if len(tables) > 1 else render(table) for title, table in tables.items()]
    return "\n\n".join(parts)


def made_by(folder: Path) -> str | None:
    """The command that the tables in a folder were made with; None if there are none."""
    for name in ("comparison.md", "ablation.md"):
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8").split("\n", 1)[0].strip("`")
    return None


def remove_others(folder: Path, files: Sequence[Path]) -> None:
    """Remove what earlier tables have left in a folder and these do not have."""
    for name in OURS:
        if folder / name not in files:
            (folder / name).unlink(missing_ok=True)


def write_tables(
    folder: Path, command: str, tables: Tables, runs: pd.DataFrame, notes: Sequence[str] = (), name: str = "comparison"
) -> list[Path]:
    """Write a Markdown file of all tables, runs.csv, and of each table a CSV and a LaTeX file.

    Args:
        folder: Where to.
        command: What the tables were made with.
        tables: By title; the first word of a title is the name of its files.
        runs: A line for each result, written in full precision.
        notes: Remarks that end the Markdown file.
        name: Of the Markdown file.

    Returns:
        The files.
    """
    parts = [f"`{command}`", *(f"### {title}\n\n{render(table)}" for title, table in tables.items())]
    parts += ["\n".join(f"- {note}" for note in notes)] if notes else []
    texts = {f"{name}.md": "\n\n".join(parts) + "\n", "runs.csv": runs.to_csv(index=False)}
    for title, table in tables.items():
        stem = title.split()[0].strip(",:").lower()
        texts |= {f"{stem}.csv": table.to_csv(index=False), f"{stem}.tex": render(table, "latex_booktabs") + "\n"}
    for file, text in texts.items():
        with replacing(folder / file) as draft:
            draft.write_text(text, encoding="utf-8")
    return [folder / file for file in texts]
