"""The benchmark's file, its plan and its tables, with runs of a toy trainer."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coft.runtime.errors import UserError
from scripts.comparing.benchmark import plan_units, read_benchmark
from scripts.comparing.benchmark_tables import Unit, write_report
from scripts.comparing.plan import Run

from .toy_runs import write_summary


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.comparing.plan.weights_of", lambda backbone: None)


def test_roles_are_fixed_and_each_form_has_its_units() -> None:
    full = read_benchmark("full")
    roles = {unit.role for unit in full.units}
    assert roles == {"development", "confirmation", "control", "spent"} and full.seeds == (1, 2, 3, 4, 5)
    assert len(set(full.units)) == len(full.units)
    assert {unit.role for unit in read_benchmark("control").units} == {"control"}
    small = read_benchmark("small")
    assert [unit.title for unit in small.units] == ["intel, photo", "digits, embedded"] and len(small.seeds) == 1
    assert dict(small.units[0].settings)["DATASET.NUM_UNLABELED"] == "1000"
    with pytest.raises(UserError, match=r"--benchmark big: expected full, small, development, .* or spent"):
        read_benchmark("big")


def test_all_runs_of_the_benchmark_can_be_planned(tmp_path: Path) -> None:
    for unit, runs in plan_units(read_benchmark("small"), str(tmp_path), tmp_path / "out").items():
        assert {run.backbone for run in runs} == {unit.backbone} and len(runs) == 4
        assert all(run.config["DATASET.NUM_TEST"] == 1000 for run in runs)


def finished(unit: Unit, runs: list[Run], rates: dict[str, float], images: int = 400) -> None:
    """Leave what finished runs leave, with a method's share of right test images."""
    for run in runs:
        write_summary(run.folder, config=run.config, seed=run.seed, seconds=12.0)
        summary = run.summary()
        assert summary is not None, unit
        right = np.random.default_rng(run.seed).random(images) < rates[run.method.name]
        table = pd.DataFrame({"image": range(images), "class": "cat", "end": np.where(right, "cat", "dog")})
        table["phase1"] = "dog"
        columns = ["image", "class", *(["phase1"] if run.method.trainer == "CoFT" else []), "end"]
        table[columns].to_csv(run.folder / "test_predictions.csv", index=False)
        if run.method.trainer == "CoFT":
            last = [("zero-shot", None), ("phase1", None), ("phase2", 0.7), ("phase2", None), ("phase2", 0.9)]
            scores = pd.DataFrame(last, columns=["stage", "auroc_p_clean"])
            metrics = scores.assign(auroc_confidence=0.6, auroc_margin=0.5)
            metrics.to_csv(run.folder / "metrics.csv", index=False)


def cells(text: str, head: str) -> dict[str, dict[str, str]]:
    """A table of a report, by its first head: by the first cell of a row, and by head."""
    (table,) = (part for part in text.split("\n\n") if part.startswith(f"| {head} "))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    return {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[2:]}


@pytest.fixture
def report(tmp_path: Path) -> str:
    planned = plan_units(read_benchmark("small"), str(tmp_path), tmp_path / "out")
    for unit, runs in planned.items():
        finished(unit, runs, {"zero-shot": 0.5, "label propagation": 0.6, "UPL": 0.6, "CoFT": 0.8})
    return write_report(planned, "bash scripts/compare.sh --benchmark small")


def numbers(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"[\d.]+", cell)]


def test_tables_say_what_was_right_and_by_how_much(report: str) -> None:
    unit = "intel, photo (development)"
    mean, low, high = numbers(cells(report, "accuracy, %")["CoFT"][unit])
    assert mean == pytest.approx(80, abs=5) and low < mean < high
    assert numbers(cells(report, "accuracy, %")["CoFT, Phase I"][unit])[0] == 0
    for head, row, units in (("errors, by those of (units)", "CoFT", [2]), ("errors of CoFT, by those of", unit, [])):
        mean, low, high, *having = numbers(cells(report, head)[row]["UPL"])
        assert mean == pytest.approx(0.5, abs=0.12) and low < mean < high < 1 and having == units
    assert cells(report, "errors, by those of (units)")["CoFT"]["CoFT"] == "-"
    assert cells(report, "seconds")["UPL"]["intel, photo"] == "12"


def test_rows_stand_in_the_order_of_the_benchmark_whatever_is_missing(tmp_path: Path) -> None:
    planned = plan_units(read_benchmark("small"), str(tmp_path), tmp_path / "out")
    for (unit, runs), names in zip(planned.items(), (["CoFT"], ["zero-shot", "UPL", "CoFT"]), strict=True):
        finished(unit, [run for run in runs if run.method.name in names], dict.fromkeys(names, 0.6))
    text = write_report(planned, "nothing")
    for head, phases in (("accuracy, %", ["CoFT, Phase I"]), ("seconds", [])):
        assert list(cells(text, head)) == ["zero-shot", "UPL", *phases, "CoFT"]


def test_scores_are_of_the_first_and_the_last_labels(report: str) -> None:
    row = cells(report, "AUROC, right from wrong labels")["digits, embedded"]
    assert [row[f"{time}: p_clean"] for time in ("first", "last")] == ["0.700", "0.900"]
    assert row["last: softmax"] == "0.600" and row["first: margin"] == "0.500"


@pytest.mark.parametrize("name", ["UPL", "label propagation"])  # what others are compared with, and what is not
def test_units_without_a_run_are_left_out(name: str, tmp_path: Path) -> None:
    planned = plan_units(read_benchmark("small"), str(tmp_path), tmp_path / "out")
    first, *_ = planned
    finished(first, [run for run in planned[first] if run.method.name == name], {name: 0.6})
    text = write_report(planned, "nothing")
    assert "intel" in text and "digits" not in text and "errors" not in text
