"""Comparison of `dassl` in two environments: recorded losses, and agreement of two records."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from forks import run_forked
from toolboxes.compare import RECORD, STEPS, accuracies, compare
from toys import write_images

ONE: dict[str, Any] = {
    "toolbox": "one",
    "losses": [{"loss": 2.0, "acc": 50.0} for _ in range(STEPS + 5)],
    "accuracies": {"accuracy_test": 90.0, "after Phase I.accuracy_both": 80.0},
}
TRAINING = """
import sys
from pathlib import Path
from dassl.engine import build_trainer
from toys import make_cfg

build_trainer(make_cfg(Path(sys.argv[1]), Path(sys.argv[2]))).train()
sys.exit(0)
"""


def changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(ONE), "toolbox": "other", **changes}


@pytest.mark.parametrize(
    ("step", "difference", "same"), [(0, 2e-5, False), (STEPS - 1, 2e-5, False), (3, 5e-6, True), (STEPS, 1.0, True)]
)
def test_losses_of_first_steps_must_agree(step: int, difference: float, same: bool) -> None:
    losses = copy.deepcopy(ONE["losses"])
    losses[step]["loss"] += difference
    assert compare("CoOp", ONE, changed(losses=losses))["same"] is same


def test_lengths_and_accuracies_must_agree() -> None:
    row = compare("CoOp", ONE, changed())
    assert row["same"] and row["accuracy %, one"] == row["accuracy %, other"] == 90.0
    assert not compare("CoOp", ONE, changed(losses=ONE["losses"][:-1]))["same"]
    other = {**ONE["accuracies"], "after Phase I.accuracy_both": 80.1}
    assert not compare("CoFT", ONE, changed(accuracies=other))["same"]


def test_accuracies_of_all_stages() -> None:
    results = {"accuracy_test": 90.0, "seeds": 30, "after Phase I": {"accuracy_both": 80.0, "coverage": 0.5}}
    assert dict(accuracies(results)) == ONE["accuracies"]


def test_losses_of_all_steps_are_recorded(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    script, losses = tmp_path / "train.py", tmp_path / "losses.json"
    script.write_text(TRAINING)
    done = run_forked([str(RECORD), str(losses), str(script), "images", "out"], tmp_path)
    assert done.returncode == 0, done.stdout
    steps = json.loads(losses.read_text())
    assert len(steps) == 6 and set(steps[0]) == {"loss_first", "loss_second", "acc"}
