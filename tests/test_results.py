"""Tables of docs/results.md: they match docs/benchmark.jsonl, and `results.sh` updates them."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import yaml

from coft.core.errors import UserError
from scripts.comparing.commands import results
from scripts.comparing.tables import BLOCK, PAGE, blocks_of, fill_page
from scripts.launch import ROOT
from tests.markdown import table_rows

LIST = ROOT / "docs" / "benchmark.jsonl"
DETERMINISTIC = ("zero-shot",)
ROLES = ("development", "confirmation")
STAGES = {"end": "", "phase1": ", Phase I"}
MEANS = (*ROLES, "both")
Rates = dict[tuple[str, str], dict[int, float]]  # error rates by unit and method, of each seed


def title(dataset: str, backbone: str, settings: dict[str, Any]) -> str:
    """Return the title of a unit on the page."""
    images, pool, ratio = (settings.get(f"DATASET.{key}", 1) for key in ("NUM_UNLABELED", "POOL", "RATIO"))
    parts = [f"{images} images"] if int(images) > 2000 else []
    parts += [f"pool {pool}"] if int(pool) > 1 else []
    parts += [f"1:{ratio}"] if float(ratio) > 1 else []
    return ", ".join([dataset, backbone, *parts])


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def benchmark() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "benchmark.yaml").read_text())
    return content


@pytest.fixture(scope="module")
def entries() -> list[dict[str, Any]]:
    """Entries of the list that belong to the current version and settings of their method."""

    def form(row: Mapping[str, Any]) -> tuple[int, dict[str, str]]:
        return row.get("version", 1), {key: str(value) for key, value in row.get("settings", {}).items()}

    forms = {row["name"]: form(row) for row in benchmark()["methods"]}
    lines = [json.loads(line) for line in LIST.read_text().splitlines()]
    return [line for line in lines if form(line["of"]) == forms.get(line["of"]["method"])]


@pytest.fixture(scope="module")
def rates(entries: list[dict[str, Any]]) -> Rates:
    """Error rates of the list, read without the tested code; a repeated run replaces the earlier one."""
    by_method: Rates = {}
    for entry in entries:
        of, unit = entry["of"], title(entry["of"]["dataset"], entry["of"]["backbone"], entry["of"]["unit"])
        for stage, bits in entry["right"].items():
            right = "".join(f"{byte:08b}" for byte in bytes.fromhex(bits))[: entry["images"]].count("1")
            seeds = by_method.setdefault((unit, of["method"] + STAGES[stage]), {})
            assert of["seed"] not in seeds or entry["commit"], f"a run is listed twice, without its commit: {of}"
            seeds[of["seed"]] = 1 - right / entry["images"]
    return by_method


@pytest.fixture(scope="module")
def roles() -> dict[str, str]:
    units = benchmark()["units"]
    return {title(unit["dataset"], unit["backbone"], unit.get("settings", {})): unit["role"] for unit in units}


def table(text: str, head: str) -> dict[str, dict[str, str]]:
    """Return the table with a first heading: cells by the first cell of their row, and by heading."""
    heads, *rows = rows_of(text, head, with_heads=True)
    return {row[0]: dict(zip(heads, row, strict=True)) for row in rows}


def rows_of(text: str, head: str, with_heads: bool = False) -> list[list[str]]:
    """Return the rows of the table with a first heading."""
    heads, *rows = table_rows(text[text.index(f"| {head}") :].split("\n\n")[0])
    return [heads, *rows] if with_heads else rows


def test_accuracies_match_list(page: str, rates: Rates, roles: dict[str, str]) -> None:
    cells = table(page, "accuracy, %")
    ours = {unit for unit, method in rates if method == "CoFT"}
    for (unit, method), seeds in rates.items():
        if unit not in ours:
            continue
        cell = cells[f"{unit} ({roles[unit]})"][method]
        assert float(cell.split(" [")[0]) == pytest.approx(100 * (1 - mean(seeds.values())), abs=0.0501), (unit, method)
        assert method in DETERMINISTIC or cell.endswith(f"] ({len(seeds)})"), (unit, method)


def mean_ratio(rates: Rates, units: list[str], ours: str, other: str) -> tuple[float, int]:
    """Return the ratio of mean errors of two methods over their shared seeds, and the number of units."""
    pairs = [(rates.get((unit, ours), {}), rates.get((unit, other), {})) for unit in units]
    means = [
        (mean(a[seed] for seed in shared), mean(b[seed] for seed in shared))
        for a, b in pairs
        if (shared := sorted(a.keys() & b.keys()))
    ]
    return (sum(a for a, _ in means) / sum(b for _, b in means), len(means)) if len(means) > 1 else (0.0, 0)


def units_of(roles: dict[str, str], title: str) -> list[str]:
    return [unit for unit, role in roles.items() if role == title or (title == "both" and role in ROLES)]


@pytest.mark.parametrize("title", MEANS)
def test_means_over_units_match_list(page: str, rates: Rates, roles: dict[str, str], title: str) -> None:
    ours = "CoFT"
    cells = table(page, f"errors of {ours}, by those of").get(f"mean over units, {title}", {})
    others = [name for name in list(cells)[1:] if name not in (ours, *DETERMINISTIC)]
    assert not cells or {"UPL", "self-training, equal steps"} <= {*others}
    for other in others:
        ratio, count = mean_ratio(rates, units_of(roles, title), ours, other)
        assert is_cell(cells[other], ratio, count), other


def is_cell(cell: str, ratio: float, count: int) -> bool:
    if not count:
        return cell == "-"
    return abs(float(cell.split(" [")[0]) - ratio) < 0.00501 and cell.endswith(f"({count})")


def test_bars_match_list(page: str, rates: Rates, roles: dict[str, str]) -> None:
    rates = dict(rates)
    for unit in roles:
        coft = rates.get((unit, "CoFT"), {})
        kept = dict.fromkeys(coft, rates[unit, "zero-shot"][1]) if unit.startswith("pacs") else coft
        rates[unit, "CoFT, guard as at first"] = kept
    rows = rows_of(blocks_of(page)["bars"], "errors of")
    assert 0 < len(rows) <= len(benchmark()["bars"])
    for ours, other, bar, *cells, met in rows:
        ratios = [mean_ratio(rates, units_of(roles, title), ours, other) for title in MEANS]
        assert all(is_cell(cell, *ratio) for cell, ratio in zip(cells, ratios, strict=True)), (ours, other)
        if met == "yes":
            high = float(cells[-1].split(", ")[1].split("]")[0])
            assert ratios[-1][0] <= float(bar) and high <= 1, (ours, other)
        elif met.startswith("missed by "):
            assert ratios[-1][0] - float(bar) == pytest.approx(float(met[10:]), abs=0.00501)
        else:
            assert met in ("-", "no, the interval reaches 1", "just missed")


def test_units_where_p_clean_has_the_higher_auroc(
    page: str, roles: dict[str, str], entries: list[dict[str, Any]]
) -> None:
    scores_of: dict[tuple[str, str, str], dict[int, float]] = {}  # by seed
    for entry in entries:
        of = entry["of"]
        unit = title(of["dataset"], of["backbone"], of["unit"])
        if of["method"] == "CoFT" and roles[unit] in ROLES:
            for time, scores in entry["auroc"].items():
                for name, value in scores.items():
                    scores_of.setdefault((unit, time, name), {})[of["seed"]] = value
    means = {place: mean(by_seed.values()) for place, by_seed in scores_of.items()}
    cells = table(page, "AUROC, right from wrong labels")
    units = {unit for unit, *_ in means}
    always = set(units)
    for time, name in itertools.product(("first", "last"), ("softmax", "margin")):
        above = {unit for unit in units if means[unit, time, "p_clean"] > means[unit, time, name]}
        always &= above
        assert cells["p_clean above it (units that count)"][f"{time}: {name}"] == f"{len(above)} of {len(units)}"
    assert cells["p_clean above all, first and last"]["first: p_clean"] == f"{len(always)} of {len(units)}"


def test_readme_tables_match_page(page: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    accuracies = table(page, "accuracy, %")
    units = {title.split(" (")[0]: title for title in accuracies}
    rows = table(readme, "test accuracy, %")
    assert len(rows) > 1
    for name, row in rows.items():
        unit = units[re.sub(r"`", "", name)]
        methods = list(row)[1:]
        assert {"zero-shot", "UPL", "MUST", "DPA", "CoFT"} <= set(methods)
        for method in methods:
            assert row[method].strip("*") == accuracies[unit][method].split(" [")[0], (name, method)
    of_page = {(row[0], row[1]): row for row in rows_of(blocks_of(page)["bars"], "errors of ")}
    bars = rows_of(readme, "errors of |")
    assert len(bars) > 3
    for method, reference, mean_of_units in bars:
        assert mean_of_units == of_page[method, reference][5], (method, reference)


def test_benchmark_tables_replace_those_of_page(page: str, tmp_path: Path) -> None:
    copy, file = tmp_path / "results.md", tmp_path / "a.md"
    copy.write_text(page)
    file.write_text("`command`\n\n| errors of | bar |\n\n| accuracy, % | a |\n\n| seconds | a |\n")
    assert results(["--benchmark", str(file)], copy) == 0
    blocks = blocks_of(copy.read_text())
    assert blocks["bars"] == "| errors of | bar |\n"
    assert blocks["benchmark"] == "`command`\n\n| accuracy, % | a |\n\n| seconds | a |\n"
    assert BLOCK.sub("", copy.read_text()) == BLOCK.sub("", page)


def test_file_without_tables_is_refused(page: str, tmp_path: Path) -> None:
    copy, file = tmp_path / "results.md", tmp_path / "a.md"
    copy.write_text(page)
    for text in ("", "| accuracy, % | a |\n|--|--|\n| 1 | 2 |\n\n| seconds | a |\n", None):
        file.unlink(missing_ok=True) if text is None else file.write_text(text)
        with pytest.raises(UserError, match=r"a\.md"):
            results(["--benchmark", str(file)], copy)
    assert copy.read_text() == page


def test_prose_contains_no_results(page: str) -> None:
    prose = re.sub(r"```.*?```", "", BLOCK.sub("", page), flags=re.DOTALL)
    assert not re.findall(r"\d+\.\d+", prose)


@pytest.mark.parametrize("wrong", ["", "<!-- begin: benchmark -->\na\n<!-- end: benchmark -->\n" * 2])
def test_wrong_markers_are_refused(page: str, tmp_path: Path, wrong: str) -> None:
    text = BLOCK.sub(lambda match: wrong if match[1] == "benchmark" else match[0], page)
    with pytest.raises(UserError, match=r"results\.md.*benchmark"):
        fill_page(text, tmp_path / "a.md")
