"""Supervised reads labels of the training images, and says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coft.core.errors import UserError
from tests.trainers.changed_sets import blank_labels, changed
from tests.trainers.runs import assert_true

Run = Callable[..., Any]


def test_supervision_has_the_labels_of_all_images_or_of_the_chosen_shots(run: Run, trained: Run) -> None:
    for built, count in ((trained("Supervised"), 36), (run("Supervised", DATASET__NUM_SHOTS=3), 9)):
        assert built.labels_used == len(built.images) == count
        for labels in built.method.labels.values():
            assert_true(built, labels.label.tolist())
            assert bool(labels.keep.all())


def test_supervision_has_the_images_of_label_free_trainers(run: Run) -> None:
    free = run("SelfTraining", train=False, DATASET__NUM_UNLABELED=20, out="free")
    built = run("Supervised", train=False, DATASET__NUM_UNLABELED=20)
    assert built.images.pool.paths == free.images.pool.paths and built.labels_used == 20
    assert_true(built, built.truth.tolist())
    shots = run("Supervised", train=False, DATASET__NUM_UNLABELED=20, DATASET__NUM_SHOTS=8, out="shots")
    assert shots.labels_used == 24
    transductive = run("Supervised", train=False, DATASET__NUM_UNLABELED=20, DATASET__UNLABELED="test", out="test")
    assert transductive.labels_used == 36


def test_without_labels_there_is_no_truth(run: Run, shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Supervised learns from labels"):
        run("Supervised", root=changed(shapes, tmp_path / "blank", blank_labels))
