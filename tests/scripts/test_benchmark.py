"""The benchmark: its file, its plan, and its tables of made-up results."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from coft.core.errors import UserError
from coft.core.paths import HOME
from coft.core.settings import flatten
from scripts.comparing.benchmark import (
    plan_units,
    read_benchmark,
    rows_of,
)
from scripts.comparing.benchmark_tables import OURS, REFERENCES, Ratio, _ratio, verdict, write_report
from scripts.comparing.list import WITH_PHASE1, read_result
from tests.markdown import table_rows

from .toy_benchmark import RATES, Planned, finish, report_of, results_of

pytestmark = pytest.mark.usefixtures("no_weights")


def cells(text: str, head: str) -> dict[str, dict[str, str]]:
    """Return a table of a report by its first heading: cells by the first cell of their row, and by heading."""
    (table,) = (part for part in text.split("\n\n") if part.startswith(f"| {head} "))
    heads, *rows = table_rows(table)
    return {row[0]: dict(zip(heads, row, strict=True)) for row in rows}


def numbers(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"[\d.]+", cell)]


# ------------------------------------------------------------------ file


def test_roles_and_units_of_the_forms() -> None:
    full = read_benchmark("full")
    roles = {unit.role for unit in full.units}
    assert roles == {"development", "confirmation", "control", "pair", "spent"} and full.seeds == (1, 2, 3, 4, 5)
    assert len(set(full.units)) == len(full.units)
    assert {unit.role for unit in read_benchmark("control").units} == {"control"}
    assert {OURS, *REFERENCES} <= {method.name for method in full.methods}
    small = read_benchmark("small")
    assert [unit.title for unit in small.units] == ["intel, photo", "digits, embedded"] and len(small.seeds) == 1
    assert dict(small.units[0].settings)["DATASET.NUM_UNLABELED"] == "1000"
    with pytest.raises(UserError, match="--benchmark big: "):
        read_benchmark("big")


def test_row_as_printed_equals_the_preset() -> None:
    (row,) = (method for method in read_benchmark("full").methods if method.name == "CoFT, as printed")
    preset = yaml.safe_load((HOME / "configs/trainers/CoFT/as_printed.yaml").read_text(encoding="utf-8"))
    assert dict(row.settings) == {key: str(value) for key, value in flatten(preset).items()}


def test_bars_refer_to_existing_rows() -> None:
    full = read_benchmark("full")
    names = {method.name for method in full.methods}
    names |= {f"{name}, Phase I" for name in names & {*WITH_PHASE1}}
    assert full.bars and {name for bar in full.bars for name in (bar["method"], bar["by"])} <= names


def test_all_runs_can_be_planned(planned: Planned, tmp_path: Path) -> None:
    for unit, runs in planned.items():
        assert {run.backbone for run in runs} == {unit.backbone} and len(runs) == 4
        assert all(run.config["DATASET.NUM_TEST"] == 1000 for run in runs)
    other = replace(read_benchmark("small"), seeds=(4, 5))
    for runs in plan_units(other, str(tmp_path), tmp_path / "out").values():  # zero-shot has no randomness
        assert {run.seed for run in runs if run.method.name == "zero-shot"} == {1}
        assert {run.seed for run in runs if run.method.name != "zero-shot"} == {4, 5}


# ------------------------------------------------------------------ tables


@pytest.fixture
def report(planned: Planned) -> str:
    for runs in planned.values():
        finish(runs)
    return report_of(planned)


def test_accuracies_and_error_ratios(report: str) -> None:
    unit = "intel, photo (development)"
    accuracies = cells(report, "accuracy, % (seeds)")[unit]
    mean, low, high, seeds = numbers(accuracies["CoFT"])
    assert seeds == 1 and len(numbers(accuracies["zero-shot"])) == 3
    assert mean == pytest.approx(80, abs=5) and low < mean < high
    assert numbers(accuracies["CoFT, Phase I"])[0] == 0
    for head, row, units in (("errors, by those of (units)", "CoFT", [2]), ("errors of CoFT, by those of", unit, [1])):
        mean, low, high, *counts = numbers(cells(report, head)[row]["UPL"])
        assert mean == pytest.approx(0.5, abs=0.12) and low < mean < high < 1 and counts == units
    assert cells(report, "errors, by those of (units)")["CoFT"]["CoFT"] == "-"


def test_auroc_of_first_and_last_labels(report: str) -> None:
    table = cells(report, "AUROC, right from wrong labels")
    row, times = table["digits, embedded"], table["p_clean above it (units that count)"]
    assert list(times.values())[1:] == ["-", "2 of 2", "2 of 2"] * 2
    assert list(table["p_clean above all, first and last"].values())[1:] == ["2 of 2", *"-----"]
    assert [row[f"{time}: p_clean"] for time in ("first", "last")] == ["0.700", "0.900"]
    assert row["last: softmax"] == "0.600" and row["first: margin"] == "0.500"


def test_mean_p_clean_and_label_accuracy(report: str) -> None:
    table = cells(report, "labels of all images, %")
    assert list(table["digits, embedded"].values())[1:] == ["62.5", "66.0", "75.0", "81.0"]
    assert list(table["within 5 points (units that count)"].values())[1:] == ["-", "2 of 2", "-", "0 of 2"]
    assert list(table["the same, first and last"].values())[1:] == ["0 of 2", "-", "-", "-"]


def test_confidence_and_accuracy_on_test_images(report: str) -> None:
    table = cells(report, "CoFT on test images, %")
    accuracy, confidence, error = map(float, list(table["digits, embedded"].values())[1:4])
    assert accuracy == pytest.approx(80, abs=5) and (confidence, error) == (83.0, 4.0)
    last = table["within 5 points (units that count)"]
    units = [row for title, row in table.items() if not title.startswith("within")]
    close = sum(abs(float(row["accuracy"]) - float(row["mean confidence"])) <= 5 for row in units)
    assert list(last.values())[1:] == ["-", f"{close} of {len(units)}", "4.0", "-", "-"]


def test_a_unit_without_confidences_is_left_out_of_their_table(planned: Planned) -> None:
    for runs in planned.values():
        finish(runs)
    ((unit, runs), *_) = planned.items()
    results = results_of(planned)
    results |= {run: replace(results[run], calibration={"unsure": 1.0}) for run in runs}
    table = cells(write_report(rows_of(planned, results), "a command", []), "CoFT on test images, %")
    assert set(table) == {other.title for other in planned if other != unit}


def test_bars_are_met_or_missed(planned: Planned) -> None:
    for runs in planned.values():
        finish(runs, RATES | {"label propagation": 0.78}, images=4000)
    bounds = {"zero-shot": (0.75, 0.2), "UPL": (0.6, 0.3)}
    bars = [{"method": "CoFT", "by": name, "at_most": bar} for name, pair in bounds.items() for bar in pair]
    bars.append({"method": "CoFT", "by": "CoOp", "at_most": 0.5})
    assert "bar" not in report_of(planned)
    assert cells(report_of(planned, bars), "errors of ")["CoFT"]["met on the mean of both?"] == "-"
    both = {
        replace(unit, role=role): runs for role in ("development", "confirmation") for unit, runs in planned.items()
    }
    text = report_of(both, bars)
    heads, *rows = table_rows(text.split("\n\n")[1])
    assert heads[2:] == ["bar", "development", "confirmation", "both", "met on the mean of both?"]
    assert [row[:3] for row in rows] == [["CoFT", n, f"{bar:.2f}"] for n, pair in bounds.items() for bar in pair]
    table = cells(text, "errors of CoFT, by those of")
    for _, name, bar, *means, met in rows:
        assert means == [table[f"mean over units, {title}"][name] for title in ("development", "confirmation", "both")]
        mean, _, high, units = numbers(means[-1])
        assert units == 4 and (met == "yes") == (mean <= float(bar) and high < 1), name
        assert met == "yes" or float(met.removeprefix("missed by ")) == pytest.approx(mean - float(bar), abs=0.02)
    assert [row[-1].split()[0] for row in rows] == ["yes", "missed"] * 2


@pytest.mark.parametrize(
    ("mean", "high", "bar", "expected"),
    [
        (0.89, 0.99, 0.9, "yes"),
        (0.89, 1.01, 0.9, "no, the interval reaches 1"),
        (1.004, 1.02, 1, "no, the interval reaches 1"),
        (0.902, 0.95, 0.9, "just missed"),
        (0.92, 1.02, 0.9, "missed by 0.02"),
    ],
)
def test_verdicts(mean: float, high: float, bar: float, expected: str) -> None:
    assert verdict(Ratio(mean, 0.8, high, 2), bar) == expected


def test_ratios_of_methods_with_hardly_an_error() -> None:
    def wrong(*images: int) -> np.ndarray:
        return ~np.isin(np.arange(40), images)[None]

    equal, more = (_ratio([[(right, wrong(3))]], 1) for right in (wrong(3), wrong(3, 5)))
    assert equal == Ratio(1, 1, 1, 1) and more is not None
    assert (more.mean, more.low, more.high) == (2, 1, np.inf)
    assert _ratio([[(wrong(3), wrong())]], 1) is None


def test_units_without_runs_are_skipped(planned: Planned) -> None:
    first, *_ = planned
    finish([run for run in planned[first] if run.method.name == "label propagation"])
    text = report_of(planned)
    assert "intel" in text and "digits" not in text and "errors" not in text


def test_methods_are_compared_over_shared_seeds(tmp_path: Path) -> None:
    three = plan_units(replace(read_benchmark("small"), seeds=(1, 2, 3)), str(tmp_path), tmp_path / "out")
    unit, runs = next(iter(three.items()))
    seeds_of = {"zero-shot": (1,), "UPL": (2, 3), "CoFT": (1, 2)}
    finished = [run for run in runs if run.seed in seeds_of.get(run.method.name, ())]
    finish(finished)
    text, row = report_of({unit: runs}), "intel, photo (development)"
    accuracies = cells(text, "accuracy, % (seeds)")[row]
    assert [accuracies[name][-4:] for name in ("CoFT", "UPL")] == [" (2)"] * 2 and accuracies["zero-shot"][-1] == "]"
    errors = {
        (run.method.name, run.seed): 1 - result.right["end"].mean() for run in finished if (result := read_result(run))
    }
    ratios = cells(text, "errors of CoFT, by those of")[row]
    assert numbers(ratios["UPL"])[0] == pytest.approx(errors["CoFT", 2] / errors["UPL", 2], abs=0.005)
    both = np.mean([errors["CoFT", 1], errors["CoFT", 2]])
    assert numbers(ratios["zero-shot"])[0] == pytest.approx(both / errors["zero-shot", 1], abs=0.005)
