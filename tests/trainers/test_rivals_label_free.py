"""What holds for CoFT holds for the trainers it is compared with: no label, order or name of a file changes a bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coft.backbones.descriptions import load_descriptions
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
    for name, change in CHANGES.items():
        root = changed(shapes, tmp_path / name, change)
        assert_same_bits(reference, weights(run("SelfTraining", root=root, out=f"out {name}", **key)))


def test_nor_with_two_prompts(run: Callable[..., Any], shapes: Path, tmp_path: Path) -> None:
    key = {"TRAINER__UPL__ENSEMBLE": 2}
    reference = weights(run("UPL", out="reference", **key))
    assert len(reference) > len(weights(run("UPL", out="one")))
    for name, change in CHANGES.items():
        root = changed(shapes, tmp_path / name, change)
        assert_same_bits(reference, weights(run("UPL", root=root, out=f"out {name}", **key)))


def test_nor_where_a_text_classifier_learns_descriptions(
    run: Callable[..., Any], shapes: Path, tmp_path: Path, described: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.lafter.descriptions_of", lambda *_: load_descriptions(described))
    reference = weights(run("LaFTer", out="reference"))
    for name, change in CHANGES.items():
        root = changed(shapes, tmp_path / name, change)
        assert_same_bits(reference, weights(run("LaFTer", root=root, out=f"out {name}")))
