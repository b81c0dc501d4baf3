"""Tables of comparisons as Markdown and LaTeX, and the tables of docs/results.md."""

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
LATEX = "latex_booktabs"
BOLD, END = "\x01", "\x02"  # placeholders for text that tabulate would escape
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


def render(table: pd.DataFrame, style: str = "github") -> str:
    """Format a table as text.

    Args:
        table: Table with columns named as in COLUMNS.
        style: A format of the package tabulate: github, latex_booktabs ... In LaTeX the best means are bold.
    """
    names = [name for name in COLUMNS if name in table and table[name].notna().any()]
    rows = [[_cell(name, value) for name, value in zip(names, row, strict=True)] for row in table[names].values]
    for row in best_means(table) if style == LATEX else ():
        rows[row][names.index("mean")] = f"{BOLD}{rows[row][names.index('mean')]}{END}"
    if style == "github":
        rows = [[_escaped(cell) for cell in row] for row in rows]
    align = ["left" if name in TEXT else "right" for name in names]
    titles = [COLUMNS[name][0] for name in names]
    text = tabulate(rows, titles, tablefmt=style, disable_numparse=True, colalign=align)
    return text.replace(BOLD, r"\textbf{").replace(END, "}")


def best_means(table: pd.DataFrame) -> list[int]:
    """Return the rows with the best mean of each data set and backbone, without methods that use labels."""
    if "mean" not in table:
        return []
    free = table.reset_index(drop=True)
    free = free[free["labels_used"].fillna(0) == 0] if "labels_used" in free else free
    groups = [group for _, group in free.groupby(PAIR)] if set(PAIR) <= set(free) else [free]
    return [int(row) for group in groups for row in group.index[group["mean"] == group["mean"].max()]]


def latex(title: str, table: pd.DataFrame, command: str) -> str:
    """Format a table with its caption as LaTeX, for the package booktabs.

    Args:
        title: Beginning of the caption.
        table: Table with columns named as in COLUMNS.
        command: Command line that makes the table, for a comment.
    """
    caption = title.replace("_", r"\_").replace("&", r"\&")
    if best_means(table):
        caption += ". Bold: the best mean without labels" if "labels_used" in table else ". Bold: the best mean"
    lines = [f"% {command}", r"\begin{table}", r"\centering", rf"\caption{{{caption}.}}", render(table, LATEX)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


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
    rows, heads = [[_escaped(cell) for cell in row] for row in rows], [_escaped(head) for head in heads]
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True, colalign=align) if rows else ""


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def titled(tables: Tables) -> str:
    """Format tables as text, with their titles if there are several."""
    parts = [f"{title}\n\n{render(table)}" if len(tables) > 1 else render(table) for title, table in tables.items()]
    return "\n\n".join(parts)


# ---------------------------------------------------------------- files


def made_by(folder: Path) -> str | None:
    """Return the command line that made the tables in a folder; None if there are none."""
    for name in ("comparison.md", "ablation.md"):
        if (folder / name).is_file():
            return read_text(folder / name).split("\n", 1)[0].strip("`")
    return None


def write_tables(
    folder: Path, command: str, tables: Tables, runs: pd.DataFrame, notes: Sequence[str] = (), name: str = "comparison"
) -> list[Path]:
    """Write a Markdown file of all tables, a LaTeX file of each, and the results as runs.csv.

    Args:
        folder: Output folder.
        command: Command line that makes the tables.
        tables: Tables by title; the first word of a title is the name of its LaTeX file.
        runs: A line for each result, written in full precision.
        notes: Remarks for the end of the Markdown file.
        name: Name of the Markdown file.

    Returns:
        Paths of the files.
    """
    parts = [f"`{command}`", *(f"### {title}\n\n{render(table)}" for title, table in tables.items())]
    parts += ["\n".join(f"- {note}" for note in notes)] if notes else []
    texts = {f"{name}.md": "\n\n".join(parts) + "\n", "runs.csv": runs.to_csv(index=False)}
    texts |= {
        f"{title.split()[0].strip(',:').lower()}.tex": latex(title, table, command) for title, table in tables.items()
    }
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
    try:
        command, *tables = read_text(benchmark).strip().split("\n\n", 2)
    except (OSError, ValueError) as error:
        raise UserError(f"{benchmark}: cannot be read ({error}); give the .md file that the command wrote") from error
    if len(tables) < 2 or not tables[0].startswith("| errors of "):
        raise UserError(f"{benchmark}: has no table of bars; give the full.md that compare.sh --benchmark full wrote")
    blocks = {"bars": f"{tables[0]}\n", "benchmark": f"{command}\n\n{tables[1]}\n"}
    return BLOCK.sub(lambda match: f"<!-- begin: {match[1]} -->\n{blocks[match[1]]}<!-- end: {match[1]} -->", page)
