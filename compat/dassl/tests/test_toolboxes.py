"""Comparison of `dassl` in two environments: agreement of two records."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from toolboxes.compare import STEPS, compare

ONE: dict[str, Any] = {
    "toolbox": "one",
    "losses": [{"loss": 2.0, "acc": 50.0} for _ in range(STEPS + 5)],
    "accuracies": {"accuracy_test": 90.0, "after Phase I.accuracy_both": 80.0},
}


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
