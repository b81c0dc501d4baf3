"""Supervised learns from the labels of the training images and reports their number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.trainers.changed_sets import Split, change_data_set
from tests.trainers.runs import Run, assert_true_labels


def test_supervised_uses_the_labels_of_all_images_or_shots(run: Run, trained: Run) -> None:
    for built, count in ((trained("Supervised"), 36), (run("Supervised", DATASET__NUM_SHOTS=3), 9)):
        assert built.labels_used == len(built.images) == count
        for labels in built.method.labels.values():
            assert_true_labels(built, labels.label.tolist())
            assert bool(labels.keep.all())


def move_to_val(split: Split, folder: Path) -> None:
    split["val"] = split["train"][::3]
    del split["train"][::3]


def test_supervised_trains_on_the_images_of_label_free_trainers(run: Run, shapes: Path, tmp_path: Path) -> None:
    free = run("SelfTraining", train=False, DATASET__NUM_UNLABELED=20, out="free")
    built = run("Supervised", train=False, DATASET__NUM_UNLABELED=20)
    assert built.images.pool.paths == free.images.pool.paths and built.labels_used == 20
    assert_true_labels(built, built.truth.tolist())
    shots = run("Supervised", train=False, DATASET__NUM_UNLABELED=20, DATASET__NUM_SHOTS=8, out="shots")
    assert shots.labels_used == 24
    transductive = run("Supervised", train=False, DATASET__NUM_UNLABELED=20, DATASET__UNLABELED="test", out="test")
    assert transductive.labels_used == 36
    root = change_data_set(shapes, tmp_path / "with-val", move_to_val)
    both: dict[str, Any] = {"root": root, "DATASET__NUM_UNLABELED": 30, "DATASET__UNLABELED": "train+val"}
    free, built = (run(t, train=False, out=f"{t}-both", **both) for t in ("SelfTraining", "Supervised"))
    assert built.images.pool.paths == free.images.pool.paths and built.labels_used == 30
    assert_true_labels(built, built.truth.tolist())
