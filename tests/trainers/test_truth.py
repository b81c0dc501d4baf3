"""Supervised and CoFTOracle read labels of the training images, and say so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from coft.core.errors import UserError
from tests.coft.toys import assert_same_bits
from tests.trainers.changed_sets import blank_labels, changed
from tests.trainers.conftest import of, weights
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


@pytest.mark.parametrize("trainer", ["Supervised", "CoFTOracle"])
def test_without_labels_there_is_no_truth(run: Run, shapes: Path, tmp_path: Path, trainer: str) -> None:
    with pytest.raises(UserError, match=f"{trainer} needs"):
        run(trainer, root=changed(shapes, tmp_path / "blank", blank_labels))


def test_an_oracle_that_knows_nothing_is_coft_and_reads_no_label(trained: Run) -> None:
    built = trained("CoFTOracle")
    assert_same_bits(weights(trained("CoFT")), weights(built))
    assert built.labels_used == 0 and not built.spec.label_free


def test_an_oracle_s_truth_is_that_of_its_images(run: Run) -> None:
    built = run("CoFTOracle", **of("COFTORACLE", {"KNOWS": "labels"}))
    assert_true(built, built.truth.tolist())
    for labels in built.method.labels.values():
        assert torch.equal(labels.label, built.truth) and bool(labels.keep.all())
    summary = json.loads((Path(built.output_dir) / "summary.json").read_text())
    assert summary["labels_used"] == 36 and "unlabeled" not in summary


@pytest.mark.parametrize("knows", ["filter", "seeds"])
def test_an_oracle_of_every_kind_reads_all_labels(run: Run, knows: str) -> None:
    built = run("CoFTOracle", train=False, **of("COFTORACLE", {"KNOWS": knows}))
    assert built.labels_used == 36
    built.engine.begin()
    right = [
        built.truth[i] == label
        for seeds in built.method.seeds.values()
        for i, label in zip(seeds.index.tolist(), seeds.label.tolist(), strict=True)
    ]
    assert right and (all(right) or knows == "filter")


def test_an_oracle_whose_labels_are_noisy_reads_all_labels(run: Run) -> None:
    built = run("CoFTOracle", **of("COFTORACLE", {"NOISE": "uniform"}))
    assert built.labels_used == 36
    for labels in built.method.labels.values():
        wrong = [int((labels.label != built.truth)[built.truth == c].sum()) for c in range(3)]
        assert wrong == [8, 8, 8]  # 2 of 3, of 12 images each
    rows = (Path(built.output_dir) / "pseudo_labels.csv").read_text().splitlines()
    assert len(rows) == 37
