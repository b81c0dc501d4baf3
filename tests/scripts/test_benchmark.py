"""The benchmark's file, its plan and its tables, with runs of a toy trainer."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coft.runtime.errors import UserError
from scripts.comparing.benchmark import Unit, plan_units, read_benchmark, write_report
from scripts.comparing.plan import Run

from .toy_runs import write_summary


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


def test_tables_say_what_was_right_and_by_how_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.comparing.plan.weights_of", lambda backbone: None)
    planned = plan_units(read_benchmark("small"), str(tmp_path), tmp_path / "out")
    rates = {"zero-shot": 0.5, "label propagation": 0.6, "UPL": 0.6, "CoFT": 0.8}
    for unit, runs in planned.items():
        finished(unit, runs, rates)
    text = write_report(planned, "bash scripts/compare.sh --benchmark small")
    rows = {cells[0]: cells[1:] for line in text.splitlines() if (cells := [c.strip() for c in line.split("|")[1:-1]])}
    mean, low, high = map(float, re.findall(r"[\d.]+", rows["CoFT"][-1]))  # the last table: over errors of UPL
    assert mean == pytest.approx(0.5, abs=0.08) and low < mean < high < 1
    accuracy = next(line for line in text.splitlines() if line.startswith("| CoFT "))
    assert "80" in accuracy or "79" in accuracy or "81" in accuracy or "78" in accuracy
    assert "CoFT, Phase I" in text and " 12 " in text
    assert "-" in write_report({unit: [] for unit in planned}, "nothing")
