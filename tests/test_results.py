"""docs/results.md is what scripts/results.sh writes from docs/runs.csv and docs/summaries.csv."""

from __future__ import annotations

import csv
import re
import statistics
from pathlib import Path

import pandas as pd
import pytest

from coft.runtime.errors import UserError
from scripts.comparing.page import __main__ as module
from scripts.comparing.page.__main__ import BLOCK, KEPT, PAGE, PHOTOGRAPHS, RUNS, fill, page_as_written, write_page
from scripts.comparing.page.cells import METHODS, PAIRS, shown
from scripts.comparing.page.from_runs import by_seed, verdict
from scripts.launch import ROOT

FORKS = """
| data set   | backbone   | change        |   accuracy % |
|------------|------------|---------------|--------------|
| PAIR       | tiny       | full          |         71.5 |
| PAIR       | tiny       | surest 30 %   |         72.1 |
| PAIR       | tiny       | constant rate |         72.3 |

| shares     | first wrong labels that both give   | last wrong labels that both give   | alone   | alone, right in the end   | among wrong ones   | among wrong ones, right in the end   |
|------------|-------------------------------------|------------------------------------|---------|---------------------------|--------------------|--------------------------------------|
| PAIR, tiny | 0.75                                | 0.83                               | 0.77    | -                         | 0.23               | 0.14                                 |
"""  # noqa: E501
T3, T8 = 4.302653, 2.364624  # Student's t of three and of eight values, 95 %
Accuracies = dict[tuple[str, str, str], dict[int, float]]


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def accuracies() -> Accuracies:
    """Accuracies by data set, backbone and method, of each seed; read without the code that is tested."""
    found: Accuracies = {}
    with RUNS.open(newline="") as file:
        for row in csv.DictReader(file):
            seeds = found.setdefault((row["dataset"], row["backbone"], row["method"]), {})
            assert int(row["seed"]) not in seeds, f"a run is listed twice: {row}"
            seeds[int(row["seed"])] = float(row["accuracy"])
    return found


def cells(page: str, block: str) -> dict[str, list[str]]:
    """Cells of a table by the first of their row."""
    (text,) = (match[2] for match in BLOCK.finditer(page) if match[1] == block)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return {row[0]: row[1:] for row in rows[2:]}


def interval(values: list[float], t: float, form: str = ".1f") -> str:
    half = t * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):{form}} ± {half:.1f}"


def test_the_page_is_what_the_command_writes(page: str) -> None:
    assert page_as_written() == page and write_page(["--check"]) == 0
    assert "scripts.comparing.page" in (ROOT / "scripts" / "results.sh").read_text()


def test_tables_of_commands_are_taken_and_then_stay(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy, tables = tmp_path / "results.md", [tmp_path / "a.md", tmp_path / "b.md"]
    copy.write_text(page)
    texts = [FORKS.replace("PAIR", path.stem) for path in tables]
    for path, text in zip(tables, texts, strict=True):
        path.write_text(text)
    monkeypatch.setattr(module, "PAGE", copy)
    monkeypatch.setattr(module, "PICTURE", tmp_path / "gain.png")
    monkeypatch.setattr(module, "EXPERIMENTS", tmp_path / "experiments.png")
    assert write_page([part for path in tables for part in ("--experiments", str(path))]) == 0
    begin, end = "<!-- begin: experiments -->\n", "\n<!-- end: experiments -->"
    assert begin + "\n\n".join(text.strip() for text in texts) + end in copy.read_text()
    assert write_page(["--check"]) == 0 and (tmp_path / "experiments.png").stat().st_size > 10_000
    tables[0].write_text("| no | such |\n|--|--|\n| 1 | 2 |\n")
    with pytest.raises(UserError, match=r"no tables of experiments\.sh"):
        write_page(["--experiments", str(tables[0])])
    assert write_page(["--check"]) == 0
    with pytest.raises(UserError, match=r"c\.md: cannot be read"):
        write_page(["--benchmark", str(tmp_path / "c.md")])


def test_prose_has_no_result_of_its_own(page: str) -> None:
    prose = re.sub(r"```.*?```", "", BLOCK.sub("", page), flags=re.DOTALL)
    assert [number for number in re.findall(r"\d+\.\d+", prose) if number not in ("4.30", "0.1", "0.0")] == []


def test_accuracies_have_intervals_over_seeds(page: str, accuracies: Accuracies) -> None:
    for number, (dataset, backbone) in enumerate(PAIRS):
        table = cells(page, "accuracies-resnet" if backbone == "embedded" else "accuracies-vit")
        for method, name in METHODS.items():
            values = list(accuracies[dataset, backbone, method].values())
            expected = interval(values, T3) if len(values) > 1 else f"{values[0]:.1f}"
            assert table[name][number % 4] == expected, (dataset, backbone, method)


def test_every_end_of_a_listed_run_is_shown(accuracies: Accuracies) -> None:
    assert {method for *_, method in accuracies if not method.endswith("Phase I")} <= METHODS.keys()


def test_differences_over_pairs_are_paired(page: str, accuracies: Accuracies) -> None:
    table = cells(page, "differences")
    for name, (one, other) in {
        "CoFT - SelfTraining": ("CoFT, after Phase II", "SelfTraining"),
        "CoFT+ - CoFT": ("CoFTPlus, after Phase II", "CoFT, after Phase II"),
    }.items():
        changes = []
        for pair in PAIRS:
            seeds = accuracies[(*pair, one)]
            changes.append([value - accuracies[(*pair, other)][seed] for seed, value in seeds.items()])
        means = [statistics.mean(values) for values in changes]
        halves = [T3 * statistics.stdev(values) / 3**0.5 for values in changes]
        above = sum(mean > half for mean, half in zip(means, halves, strict=True))
        assert table[name][0] == interval(means, T8, "+.1f")
        assert table[name][2:4] == [f"{sum(mean > 0 for mean in means)} of 8", str(above)]
        for pair, values in zip(cells(page, "differences-by-pair").values(), changes, strict=True):
            assert interval(values, T3, "+.1f").lstrip("+-") in [cell.lstrip("+-") for cell in pair]


def test_photographs_are_those_of_their_list(page: str) -> None:
    with PHOTOGRAPHS.open(newline="") as file:
        found = {(row["dataset"], row["method"]): float(row["accuracy"]) for row in csv.DictReader(file)}
    table, sets = cells(page, "photographs"), list(dict.fromkeys(dataset for dataset, _ in found))
    for place, dataset in enumerate(sets):
        coft, upl = (found[dataset, method] for method in ("CoFT, after Phase II", "UPL"))
        assert table["**CoFT**"][place] == f"{coft:.1f}" and table["UPL"][place] == f"{upl:.1f}"
        assert table["errors of CoFT / of UPL"][place] == f"{(100 - coft) / (100 - upl):.2f}"


def test_what_draws_nothing_counts_for_all_seeds() -> None:
    runs = pd.read_csv(RUNS)
    zero_shot = by_seed(runs)["ZeroshotCLIP"]
    assert zero_shot.notna().all() and zero_shot.groupby(["dataset", "backbone"]).nunique().eq(1).all()


def test_cells() -> None:
    assert [shown(1.25), shown(-0.04), shown(-0.04, form="+.1f"), shown(float("nan"), 1)] == ["1.2", "0.0", "+0.0", ""]
    assert shown(2, 0.5, "+.1f") == "+2.0 ± 0.5"
    assert [verdict(1, 2), verdict(3, 2), verdict(-3, 2)] == ["no", "higher", "lower"]


def test_every_mean_that_is_kept_says_of_how_many_seeds_and_which_version() -> None:
    kept = pd.read_csv(KEPT)
    assert kept[["table", "dataset", "backbone", "quantity", "mean", "seeds", "version"]].notna().all(axis=None)
    assert (kept["std"].isna() | (kept["seeds"] > 1)).all()
    assert not kept.duplicated(["table", "dataset", "backbone", "row", "quantity"]).any()


def test_markers_that_do_not_fit_are_named() -> None:
    text = "<!-- begin: a -->\nold\n<!-- end: a -->\n"
    assert fill(text, {"a": "new"}) == text.replace("old", "new")
    for blocks in ({}, {"a": "", "b": ""}):
        with pytest.raises(UserError, match="there should be a table of this name"):
            fill(text, blocks)


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "archive").glob("*.md")), ids=lambda path: path.name)
def test_links_of_the_archive_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target
