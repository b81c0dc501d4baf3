"""Every trainer ends where it ended: a part of the golden runs. `python -m tests.golden` makes all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.golden import runs

CASES = [  # the others take longest
    ("CoFT, filter own", "embedded"),
    ("LaFTer", "embedded-vit"),
    ("Supervised", "embedded-vit"),
    ("NormAdaptation", "embedded"),
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
def test_a_run_ends_where_it_ended(
    name: str, backbone: str, data: Path, tmp_path: Path, golden: dict[str, Any]
) -> None:
    found = runs.do(name, backbone, data, tmp_path / "run")
    assert not runs.differences(found, golden["runs"][f"{name}, {backbone}"], golden["machine"] == runs.machine())


KNOWN: dict[str, Any] = {
    "bits": {"weights": "ab", "tensors": 3, "labels": ""},
    "numbers": {"norm of peer_a": 2000.0, "zero-shot, accuracy_both": 92.5, "zero-shot, kept": 60, "precision": 0.9},
}


def but(part: str, **changes: Any) -> dict[str, Any]:
    return KNOWN | {part: KNOWN[part] | changes}


@pytest.mark.parametrize("exact", [True, False])
def test_what_is_the_same_does_not_differ(exact: bool) -> None:
    assert runs.differences(KNOWN, KNOWN, exact) == []
    assert runs.differences(but("numbers", new=1.0), KNOWN, exact) == []


@pytest.mark.parametrize(
    ("found", "exactly", "nearly"),
    [
        (but("bits", weights="cd"), True, False),
        (but("bits", tensors=4), True, True),  # another number of weights is no matter of rounding
        (but("numbers", **{"norm of peer_a": 2001.9}), True, False),
        (but("numbers", **{"norm of peer_a": 2002.1}), True, True),
        (but("numbers", **{"zero-shot, accuracy_both": 95.0}), True, False),  # an image of 40
        (but("numbers", **{"zero-shot, accuracy_both": 97.5}), True, True),
        (but("numbers", **{"zero-shot, kept": 61}), True, False),
        (but("numbers", **{"zero-shot, kept": 58}), True, True),
        (but("numbers", precision=0.92), True, False),
        (but("numbers", precision=0.95), True, True),
        ({"bits": KNOWN["bits"], "numbers": {"precision": 0.9}}, True, True),
        ("ValueError: no such thing", True, True),
    ],
)
def test_what_differs_is_named(found: Any, exactly: bool, nearly: bool) -> None:
    assert bool(runs.differences(found, KNOWN, True)) == exactly
    assert bool(runs.differences(found, KNOWN, False)) == nearly
