"""The paper's table, with methods as rows, data sets as columns and published figures below."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tabulate import tabulate

from coft.core.files import replacing
from coft.core.words import counted
from scripts.paths import display_path

from .benchmark import NO_SEED, Benchmark, BySeed, Published, Rows, Unit
from .methods import READS_LABELS
from .statistics import bootstrap_errors, interval
from .tables import BOLD, END, LATEX, MISSING, markdown

MEAN = "mean"
PLUS_MINUS = "\x03"  # placeholder for text that tabulate would escape
TEX = {BOLD: r"\textbf{", END: "}", PLUS_MINUS: r"$\pm$"}
MARKDOWN = {BOLD: "**", END: "**", PLUS_MINUS: "±"}
CLOSE = 1.0  # points by which our results may differ from published ones of the same set-up


def cells_of(benchmark: Benchmark, rows: Mapping[Unit, Rows]) -> pd.DataFrame:
    """Collect the cells of the tables of all backbones: our methods that have a result, then published figures.

    Returns:
        A line for each cell: backbone; method; dataset, or "mean" if there are all of them; accuracy in percent;
        half_interval, half the width of its 95 % interval (only ours); seeds, 0 for a deterministic method;
        uses_labels; published; source, the reference of a published figure.
    """
    cells: list[dict[str, Any]] = []
    for backbone in dict.fromkeys(unit.backbone for unit in rows):
        units = {unit.dataset: of_unit for unit, of_unit in rows.items() if unit.backbone == backbone}
        for method in benchmark.methods:
            right = {
                name: of_unit.right[method.name] for name, of_unit in units.items() if method.name in of_unit.right
            }
            line = {"backbone": backbone, "method": method.name, "published": False, "source": ""}
            line["uses_labels"] = READS_LABELS.get(method.trainer, False)
            cells += [{**line, **cell} for cell in _our_cells(right, list(units))]
        for row in benchmark.published:
            line = {"backbone": backbone, "method": row.name, "uses_labels": False, "published": True}
            line |= {"source": row.source, "seeds": 1}
            figures = {name: value for name, value in row.accuracy.items() if name in units}
            if row.backbone == backbone and figures:
                figures |= {MEAN: float(np.mean(list(figures.values())))} if len(figures) == len(units) else {}
                cells += [{**line, "dataset": name, "accuracy": value} for name, value in figures.items()]
    columns = ["backbone", "method", "dataset", "accuracy", "half_interval", "seeds"]
    columns += ["uses_labels", "published", "source"]
    return pd.DataFrame(cells, columns=columns)


def _our_cells(right: Mapping[str, BySeed], datasets: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the cells of a method, and their mean, with intervals over the images and seeds of these data sets."""
    cells, draws = list[dict[str, Any]](), list[NDArray[np.float64]]()
    for place, name in enumerate(datasets):
        if name in right:
            of_seeds = np.stack(list(right[name].values()))
            draws.append(100 * (1 - bootstrap_errors([[(of_seeds,)]], seed=place)[:, 0]))
            seeds = 0 if NO_SEED in right[name] else len(of_seeds)
            cells.append(_cell(name, 100 * float(of_seeds.mean()), draws[-1], seeds))
    yield from cells
    if len(cells) == len(datasets):
        mean = float(np.mean([cell["accuracy"] for cell in cells]))
        yield _cell(MEAN, mean, np.mean(draws, axis=0), min(cell["seeds"] for cell in cells))


def _cell(dataset: str, accuracy: float, draws: NDArray[np.float64], seeds: int) -> dict[str, Any]:
    low, high = interval(draws)
    return {"dataset": dataset, "accuracy": accuracy, "half_interval": (high - low) / 2, "seeds": seeds}


def deviations(published: Sequence[Published], cells: pd.DataFrame) -> list[str]:
    """Return a line for each of our results that should agree with a published figure, but differs."""
    keys = ["backbone", "method", "dataset"]
    ours = cells[~cells["published"]].set_index(keys)["accuracy"].to_dict()
    lines = []
    for row in published:
        for dataset, figure in row.accuracy.items():
            accuracy = ours.get((row.backbone, row.row, dataset))
            if row.check and accuracy is not None and abs(accuracy - figure) > CLOSE:
                lines.append(
                    f"the set-up differs: {row.row} on {dataset}, {row.backbone}, is {accuracy:.1f} % here and "
                    f"{figure:.1f} published ({row.source}): {accuracy - figure:+.1f}"
                )
    return lines


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
    heads = ["method", *(benchmark.sets[name].title if name in benchmark.sets else name for name in names)]
    cells = cells_of(benchmark, rows)
    parts, tex = [f"`{called}`"], []
    for backbone, of_backbone in cells.groupby("backbone", sort=False):
        body, about = _body(benchmark, of_backbone, names), caption(benchmark, of_backbone, str(backbone))
        plain = [[_replace_marks(cell, MARKDOWN) for cell in row] for row in body]
        parts += [f"### {backbone}", markdown(plain, heads), about]
        tex.append(as_latex(body, heads, of_backbone.loc[~of_backbone["published"], "method"].nunique(), about, called))
    notes = [*deviations(benchmark.published, cells), *remarks]
    text = "\n\n".join(parts) + "\n" + "".join(f"\n- {note}" for note in notes) + ("\n" if notes else "")
    csv = cells.assign(seeds=cells["seeds"].clip(lower=1)).to_csv(index=False)
    texts = {".md": text, ".csv": csv, ".tex": "\n".join(tex)}
    for suffix, content in texts.items():
        with replacing(path.with_suffix(suffix)) as draft:
            draft.write_text(content, encoding="utf-8")
    return "\n".join([text, *(f"  {display_path(path.with_suffix(suffix))}" for suffix in texts)])


def caption(benchmark: Benchmark, cells: pd.DataFrame, backbone: str) -> str:
    """Return the caption of a backbone's table."""
    cited = cells[cells["published"]]
    sources = (cited["method"] + ": " + cited["source"]).unique()
    published = f" Published figures, not ours: {'; '.join(sources)}." if len(sources) else ""
    seeds = counted(len(benchmark.seeds), "seed")
    return (
        f"Top-1 accuracy in percent, {backbone}, in CoOp's splits, whole training sets unlabeled; means of {seeds} (or "
        "as many as a bracket says), and half of the 95 % interval by bootstrap over test images and seeds. Methods of "
        f"others, and CoFT itself, are our reconstructions. Bold: the best of ours without labels.{published}"
    )


def _body(benchmark: Benchmark, cells: pd.DataFrame, names: Sequence[str]) -> list[list[str]]:
    """Return the rows of a backbone's table, with placeholders for text that differs between formats."""
    free = ~cells["published"] & ~cells["uses_labels"]
    best = cells[free].groupby("dataset")["accuracy"].max()
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for cell, bold in zip(
        cells.to_dict("records"), free & (cells["accuracy"] == cells["dataset"].map(best)), strict=True
    ):
        text = f"{BOLD}{cell['accuracy']:.1f}{END}" if bold else f"{cell['accuracy']:.1f}"
        if not cell["published"]:
            text += f" {PLUS_MINUS}{cell['half_interval']:.1f}"
            text += f" ({cell['seeds']})" if 0 < cell["seeds"] < len(benchmark.seeds) else ""
        title = f"{cell['method']} (published)" if cell["published"] else cell["method"]
        rows.setdefault((title, cell["source"]), {})[cell["dataset"]] = text
    return [[title, *(texts.get(name, MISSING) for name in names)] for (title, _), texts in rows.items()]


def _replace_marks(text: str, marks: Mapping[str, str]) -> str:
    for mark, words in marks.items():
        text = text.replace(mark, words)
    return text


def as_latex(body: Sequence[Sequence[str]], heads: Sequence[str], ours: int, about: str, called: str) -> str:
    """Format a table as LaTeX, for the package booktabs, with published figures below a rule.

    Args:
        body: Rows, with placeholders.
        heads: Titles of the columns.
        ours: Number of rows above the published figures.
        about: Caption.
        called: Command line that makes the table, for a comment.
    """
    align = ["left", *["right"] * (len(heads) - 1)]
    lines = tabulate(body, heads, tablefmt=LATEX, disable_numparse=True, colalign=align).splitlines()
    if 0 < ours < len(body):
        lines.insert(lines.index(r"\midrule") + 1 + ours, r"\midrule")
    for sign in r"&%$#_":
        about = about.replace(sign, f"\\{sign}")
    head = [f"% {called}", r"\begin{table*}", r"\centering", rf"\caption{{{about}}}", r"\resizebox{\linewidth}{!}{%"]
    return _replace_marks("\n".join([*head, *lines, "}", r"\end{table*}"]) + "\n", TEX)
