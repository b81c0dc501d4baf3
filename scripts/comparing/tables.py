"""Tables of comparisons as Markdown, and the tables of docs/results.md."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from coft.core.errors import UserError
from coft.core.files import replacing
from coft.core.untrusted import read_text
from scripts.launch import ROOT

from .statistics import PAIR, overall, summarise

MISSING = "-"
NOTHING = "no run is finished: nothing to tabulate"
# Title and format by column. A table shows its columns that are listed here and not empty, in this order.
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
Tables = Mapping[str, pd.DataFrame]


def comparison_tables(rows: pd.DataFrame) -> Tables:
    """Return the tables of a comparison by title: the summary and, if there are several pairs, the mean over them."""
    tables, means = {"Summary": summarise(rows)}, overall(rows)
    if not means.empty:
        title = f"Overall: mean over {rows.groupby(PAIR).ngroups} pairs of data set and backbone"
        tables[title] = means.sort_values("mean", kind="stable")
    return tables


# ---------------------------------------------------------------- as text


def render(table: pd.DataFrame) -> str:
    """Format a table, with columns named as in COLUMNS, as Markdown."""
    names = [name for name in COLUMNS if name in table and table[name].notna().any()]
    rows = [
        [_cell(name, value).replace("|", "\\|") for name, value in zip(names, row, strict=True)]
        for row in table[names].values
    ]
    return markdown(rows, [COLUMNS[name][0] for name in names], texts=sum(name in TEXT for name in names))


def _cell(name: str, value: Any) -> str:
    if pd.isna(value):
        return MISSING
    text = COLUMNS[name][1].format(value)
    return "+" + text[1:] if text.startswith("-") and not text.strip("-0.%") else text  # no "-0.0"


def markdown(rows: Sequence[Sequence[str]], heads: Sequence[str], texts: int = 1) -> str:
    """Format cells as a Markdown table; empty if there is no row.

    Args:
        rows: Rows of cells.
        heads: Titles of the columns.
        texts: Number of leading columns that are aligned to the left; the others are aligned to the right.
    """
    align = [*["left"] * texts, *["right"] * (len(heads) - texts)]
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True, colalign=align) if rows else ""


def titled(tables: Tables) -> str:
    """Format tables as text, with their titles if there are several."""
    parts = [f"{title}\n\n{render(table)}" if len(tables) > 1 else render(table) for title, table in tables.items()]
    return "\n\n".join(parts)


# ---------------------------------------------------------------- files


def write_tables(
    folder: Path, command: str, tables: Tables, runs: pd.DataFrame, notes: Sequence[str] = (), name: str = "comparison"
) -> list[Path]:
    """Write a Markdown file of all tables, and the results as runs.csv.

    Args:
        folder: Output folder.
        command: Command line that makes the tables.
        tables: Tables by title.
        runs: A line for each result, written in full precision.
        notes: Remarks for the end of the Markdown file.
        name: Name of the Markdown file.

    Returns:
        Paths of the files.
    """
    parts = [f"`{command}`", *(f"### {title}\n\n{render(table)}" for title, table in tables.items())]
    parts += ["\n".join(f"- {note}" for note in notes)] if notes else []
    texts = {f"{name}.md": "\n\n".join(parts) + "\n", "runs.csv": runs.to_csv(index=False)}
    for file, text in texts.items():
        with replacing(folder / file) as draft:
            draft.write_text(text, encoding="utf-8")
    return [folder / file for file in texts]


# ---------------------------------------------------------------- docs/results.md

PAGE = ROOT / "docs" / "results.md"
BLOCKS = ("bars", "benchmark")  # the benchmark's first table, and its others
BLOCK = re.compile(r"<!-- begin: ([\w-]+) -->\n(.*?)<!-- end: \1 -->", re.DOTALL)


def blocks_of(page: str) -> dict[str, str]:
    """Return the text between the markers of a page, by block name.

    Raises:
        UserError: If the page does not have the markers of each of `BLOCKS` exactly once.
    """
    blocks = [(match[1], match[2]) for match in BLOCK.finditer(page)]
    if sorted(name for name, _ in blocks) != sorted(BLOCKS):
        raise UserError(f"{PAGE}: the page should have markers of {', '.join(BLOCKS)} once each; mend the page")
    return dict(blocks)


def fill_page(page: str, benchmark: Path) -> str:
    """Return a page with the tables of a file between its markers.

    Raises:
        UserError: If the file cannot be read or lacks the tables, or the page lacks its markers.
    """
    blocks_of(page)
    command, *tables = _read(benchmark).split("\n\n", 2)
    if len(tables) < 2 or not tables[0].startswith("| errors of "):
        raise UserError(f"{benchmark}: has no table of bars; give the full.md that compare.sh --benchmark full wrote")
    blocks = {"bars": f"{tables[0]}\n", "benchmark": f"{command}\n\n{tables[1]}\n"}
    return BLOCK.sub(lambda match: f"<!-- begin: {match[1]} -->\n{blocks[match[1]]}<!-- end: {match[1]} -->", page)


def _read(path: Path) -> str:
    try:
        return read_text(path).strip()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give the .md file that the command wrote") from error
