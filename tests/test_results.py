"""Tables of docs/results.md: they match docs/benchmark.jsonl, and `results.sh` updates them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coft.core.errors import UserError
from scripts.comparing.benchmark import listed_results, read_benchmark, rows_of
from scripts.comparing.benchmark_tables import write_report
from scripts.comparing.commands import results
from scripts.comparing.plan import Run
from scripts.comparing.tables import BLOCK, PAGE, blocks_of, fill_page
from scripts.launch import ROOT
from tests.markdown import table_rows

LIST = ROOT / "docs" / "benchmark.jsonl"
INTERVAL = re.compile(r"(?<=\d) \[[\d.]+, [\d.]+\]")  # its bounds are drawn, so they depend on the version of NumPy


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def lines_of(text: str, head: str) -> list[list[str]]:
    """Return the headings and rows of the table with a first heading."""
    return table_rows(text[text.index(f"| {head}") :].split("\n\n")[0])


def table(text: str, head: str) -> dict[str, dict[str, str]]:
    """Return a table: cells by the first cell of their row, and by heading."""
    heads, *rows = lines_of(text, head)
    return {row[0]: dict(zip(heads, row, strict=True)) for row in rows}


@pytest.mark.slow
def test_tables_are_those_of_the_list(page: str, tmp_path: Path) -> None:
    """What the tables are is tested with made-up results in tests/scripts/test_benchmark.py."""
    benchmark = read_benchmark("full")
    planned = {
        unit: [
            Run(method, unit.dataset, unit.backbone, seed, (), Path(unit.title), {})
            for method in benchmark.methods
            for seed in benchmark.seeds
        ]
        for unit in benchmark.units
    }
    rows = rows_of(planned, listed_results(planned, LIST))
    command, *_ = blocks_of(page)["benchmark"].split("\n", 1)
    notes = re.findall(r"^- (.*)$", blocks_of(page)["benchmark"], re.MULTILINE)
    (tmp_path / "full.md").write_text(write_report(rows, command.strip("`"), benchmark.bars, notes))
    assert INTERVAL.sub("", fill_page(page, tmp_path / "full.md")) == INTERVAL.sub("", page)


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
    of_page = {(row[0], row[1]): row for row in lines_of(blocks_of(page)["bars"], "errors of ")}
    _, *bars = lines_of(readme, "errors of |")
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
