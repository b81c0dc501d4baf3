"""Every number in the two main tables of docs/results.md is one of docs/runs.csv, where each run is listed."""

from __future__ import annotations

import csv
import re
import statistics
from collections import defaultdict
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
SETS = {"digits": "Digits", "icons": "Icons", "emoji": "Emoji", "fashion-mnist": "FashionMNIST"}
COLUMNS = {
    "zero-shot": "ZeroshotCLIP",
    "UPL": "UPL",
    "UPL x 2": "UPL x 2",
    "CoFT, Phase I": "CoFT, after Phase I",
    "CoFT, Phase II": "CoFT, after Phase II",
    "CoFT+": "CoFTPlus, after Phase II",
}
LINES = {method: f"{method}, after Phase II" for method in ("CoFT", "CoFTPlus", "DeFT")}
Key = tuple[str, str, str]


@pytest.fixture(scope="module")
def accuracies() -> dict[Key, list[float]]:
    """Accuracies over seeds, by data set, backbone and method."""
    found: dict[Key, dict[int, float]] = defaultdict(dict)
    with (DOCS / "runs.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            seeds = found[row["dataset"], row["backbone"], row["method"]]
            assert int(row["seed"]) not in seeds, f"a run is listed twice: {row}"
            seeds[int(row["seed"])] = float(row["accuracy"])
    return {key: list(seeds.values()) for key, seeds in found.items()}


def table_after(heading: str) -> list[list[str]]:
    """Cells of the first table below a heading, its headline first."""
    text = (DOCS / "results.md").read_text()
    below = text[text.index(f"## {heading}\n") :]
    lines = re.search(r"(^\|.*\n)+", below, flags=re.MULTILINE)
    assert lines
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[0].splitlines()]
    return [row for row in rows if not set("".join(row)) <= set("-")]


def shown(values: list[float], count: bool) -> str:
    """Mean, sample standard deviation and, on request, number of seeds, as the tables have them."""
    text = f"{statistics.mean(values):.1f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.1f}" + (f" ({len(values)})" if count else "")
    return text


def test_first_table_is_of_the_listed_runs(accuracies: dict[Key, list[float]]) -> None:
    head, *rows = table_after("CoFT against UPL and zero-shot")
    assert len(rows) == 8 and set(COLUMNS) <= set(head)
    for row in rows:
        cells = dict(zip(head, row, strict=True))
        pair = SETS[cells["data set"].lower()], cells["backbone"]
        for column, method in COLUMNS.items():
            values = accuracies[(*pair, method)]
            if method == "ZeroshotCLIP":
                values = values[:1]  # it has no seed
            assert cells[column] == shown(values, count=False), (pair, column)


def test_table_of_rivals_is_of_the_listed_runs(accuracies: dict[Key, list[float]]) -> None:
    head, *rows = table_after("Rivals")
    pairs = [cell.partition(", ViT") for cell in head[1:]]
    seen = set()
    for name, *cells in rows:
        method = LINES.get(name, name)
        for (dataset, vit, _), cell in zip(pairs, cells, strict=True):
            key = SETS[dataset.lower()], "embedded-vit" if vit else "embedded", method
            values = accuracies.get(key, [])[: 1 if name == "ZeroshotCLIP" else None]
            assert cell == (shown(values, count=True) if values else ""), key
            seen.add(key)
    left = {key for key in accuracies if not key[2].endswith("Phase I")} - seen
    assert not left, "runs that the table does not show"


def test_table_of_coft_plus_is_of_the_listed_runs(accuracies: dict[Key, list[float]]) -> None:
    head, *rows = table_after("CoFT+")
    columns = {
        "round 3 (end of Phase I)": "CoFTPlus, after Phase I",
        "Phase II": "CoFTPlus, after Phase II",
        "CoFT, Phase II": "CoFT, after Phase II",
    }
    assert len(rows) == 8
    for row in rows:
        cells = dict(zip(head, row, strict=True))
        dataset, backbone = row[0].split(", ")
        pair = SETS[dataset.lower()], backbone
        for column, method in columns.items():
            assert cells[column] == shown(accuracies[(*pair, method)], count=False), (pair, column)
        ends = zip(
            accuracies[(*pair, "CoFTPlus, after Phase II")], accuracies[(*pair, "CoFT, after Phase II")], strict=True
        )
        more = [plus - plain for plus, plain in ends]
        expected = f"{statistics.mean(more):+.1f} ± {statistics.stdev(more):.1f}"
        assert cells["difference"] == expected, pair
