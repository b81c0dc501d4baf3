"""The comparison of two environments' `dassl`."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.compare_toolboxes import STEPS, compare, main
from tests.golden.runs import write_data

RECORD: dict[str, Any] = {
    "toolbox": "one",
    "losses": [{"loss": 2.0, "acc": 50.0} for _ in range(STEPS + 5)],
    "accuracies": {"accuracy_test": 90.0, "after Phase I.accuracy_both": 80.0},
}


def changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(RECORD), "toolbox": "other", **changes}


def test_equal_records() -> None:
    row = compare("CoOp", RECORD, changed())
    assert row["same"] and row["accuracy %, one"] == row["accuracy %, other"] == 90.0


@pytest.mark.parametrize(
    ("step", "apart", "same"), [(0, 2e-5, False), (STEPS - 1, 2e-5, False), (3, 5e-6, True), (STEPS, 1.0, True)]
)
def test_losses_of_the_first_steps_have_to_agree(step: int, apart: float, same: bool) -> None:
    losses = copy.deepcopy(RECORD["losses"])
    losses[step]["loss"] += apart
    assert compare("CoOp", RECORD, changed(losses=losses))["same"] is same


def test_one_that_stopped_early_does_not_agree() -> None:
    assert not compare("CoOp", RECORD, changed(losses=RECORD["losses"][:-1]))["same"]


def test_every_accuracy_has_to_agree() -> None:
    other = {**RECORD["accuracies"], "after Phase I.accuracy_both": 80.1}
    assert not compare("CoFT", RECORD, changed(accuracies=other))["same"]


@pytest.mark.slow
def test_an_environment_agrees_with_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATA", str(write_data(tmp_path)))
    assert main([sys.prefix, sys.prefix, "CoOp", "--opts", "OPTIM.MAX_EPOCH", "1"]) == 0
    row = capsys.readouterr().out.splitlines()[-1].split("|")
    assert [cell.strip() for cell in row[1:5]] == ["CoOp", "5", "0", "0"]


def test_a_folder_that_is_no_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), sys.prefix])
    assert "bin/python" in capsys.readouterr().err
