"""A fast part of the golden runs; `python -m tests.golden` does all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.golden import runs

CASES = [
    ("CoFT, filter own", "embedded"),
    ("LaFTer", "embedded-vit"),
    ("Supervised", "embedded-vit"),
    ("TrainingFree", "embedded-vit"),
    ("ZeroshotCLIP", "embedded"),
    ("UPL", "embedded-vit"),
    ("GRIP", "embedded"),
    ("CoOp", "embedded-vit"),
]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.write_data(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return runs.load()


@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_run_matches_golden_file(name: str, backbone: str, data: Path, tmp_path: Path, golden: dict[str, Any]) -> None:
    result = runs.run(name, backbone, data, tmp_path / "run")
    assert not runs.differences(result, golden["runs"][f"{name}, {backbone}"], golden["machine"] == runs.machine())


GOLDEN: dict[str, Any] = {
    "bits": {"weights": "ab", "tensors": 3, "labels": ""},
    "numbers": {"norm of peer_a": 2000.0, "zero-shot, accuracy_both": 92.5, "zero-shot, kept": 60, "precision": 0.9},
}


def changed(part: str, **changes: Any) -> dict[str, Any]:
    return GOLDEN | {part: GOLDEN[part] | changes}


@pytest.mark.parametrize("exact", [True, False])
def test_equal_runs_have_no_differences(exact: bool) -> None:
    assert runs.differences(GOLDEN, GOLDEN, exact) == []
    assert runs.differences(changed("numbers", new=1.0), GOLDEN, exact) == []


@pytest.mark.parametrize(
    ("result", "differs_exactly", "differs_beyond_rounding"),
    [
        (changed("bits", weights="cd"), True, False),
        (changed("bits", tensors=4), True, True),  # the number of weights does not depend on rounding
        (changed("numbers", **{"norm of peer_a": 2001.9}), True, False),
        (changed("numbers", **{"norm of peer_a": 2002.1}), True, True),
        (changed("numbers", **{"zero-shot, accuracy_both": 95.0}), True, False),  # one image of 40
        (changed("numbers", **{"zero-shot, accuracy_both": 97.5}), True, True),
        ({"bits": GOLDEN["bits"], "numbers": {"precision": 0.9}}, True, True),
        ("ValueError: no such thing", True, True),
    ],
)
def test_differences(result: Any, differs_exactly: bool, differs_beyond_rounding: bool) -> None:
    assert bool(runs.differences(result, GOLDEN, True)) == differs_exactly
    assert bool(runs.differences(result, GOLDEN, False)) == differs_beyond_rounding
