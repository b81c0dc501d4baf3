"""What holds for CoFT holds for the trainers it is compared with: no label, order or name of a file changes a bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainers.conftest import assert_same_bits, weights
from tests.trainers.test_label_free import CHANGES, changed, changes

RIVALS = [
    ("SelfTraining", "resnet"),
    ("SelfTraining", "vit"),
    ("NormAdaptation", "resnet"),
    ("NormAdaptation", "vit"),
    ("GRIP", "resnet"),
    ("GRIP", "vit"),
    ("LaFTer", "resnet"),
    ("LaFTer", "vit"),
    ("DeFT", "resnet"),
    ("DeFT", "vit"),
]


@pytest.mark.parametrize(("trainer", "backbone"), RIVALS)
def test_labels_order_and_names_change_no_bit(
    run: Callable[..., Any], shapes: Path, tmp_path: Path, trainer: str, backbone: str
) -> None:
    reference = weights(run(trainer, backbone, out="reference"))
    assert reference
    for name in changes(trainer, backbone):
        root = changed(shapes, tmp_path / name, CHANGES[name])
        assert_same_bits(reference, weights(run(trainer, backbone, root=root, out=f"out {name}")))


def test_nor_when_labels_are_renewed(run: Callable[..., Any], shapes: Path, tmp_path: Path) -> None:
    key = {"TRAINER__SELFTRAINING__REFRESH": 1}
    reference = weights(run("SelfTraining", out="reference", **key))
    for name in ("permuted", "shuffled"):
        root = changed(shapes, tmp_path / name, CHANGES[name])
        assert_same_bits(reference, weights(run("SelfTraining", root=root, out=f"out {name}", **key)))
