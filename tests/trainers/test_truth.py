"""Trainers that read labels of the training images: Supervised and CoFTOracle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from coft.core.errors import UserError
from tests.trainers.conftest import assert_same_bits, of, weights
from tests.trainers.test_label_free import blank_labels, changed

Run = Callable[..., Any]


def assert_true(trainer: Any, labels: list[int]) -> None:
    """Compare labels by index with those that the names of the files tell."""
    for path, label in zip(trainer.images.pool.paths, labels, strict=True):
        assert Path(path).name.startswith(f"train_{label}_")


def test_supervision_has_the_labels_of_all_images_or_of_the_chosen_shots(run: Run, trained: Run) -> None:
    for built, count in ((trained("Supervised"), 60), (run("Supervised", DATASET__NUM_SHOTS=3), 9)):
        assert built.labels_used == len(built.images) == count
        for peer in built.method.peers.values():
            assert_true(built, peer.labels.label.tolist())
            assert bool(peer.labels.keep.all())


def test_supervision_has_the_images_of_label_free_trainers(run: Run) -> None:
    free = run("SelfTraining", train=False, DATASET__NUM_UNLABELED=20, out="free")
    built = run("Supervised", train=False, DATASET__NUM_UNLABELED=20)
    assert built.images.pool.paths == free.images.pool.paths and built.labels_used == 20
    assert_true(built, built.truth.tolist())
    shots = run("Supervised", train=False, DATASET__NUM_UNLABELED=20, DATASET__NUM_SHOTS=8, out="shots")
    assert shots.labels_used == 24
    transductive = run("Supervised", train=False, DATASET__NUM_UNLABELED=20, DATASET__UNLABELED="test", out="test")
    assert transductive.labels_used == 60


@pytest.mark.parametrize(("trainer", "message"), [
    ("Supervised", "Supervised needs labels, and no training image has one"),
    ("CoFTOracle", "CoFTOracle needs the label of every training image; use CoFT"),
])  # fmt: skip
def test_without_labels_there_is_no_truth(run: Run, shapes: Path, tmp_path: Path, trainer: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(trainer, root=changed(shapes, tmp_path / "blank", blank_labels))


def test_an_oracle_that_knows_nothing_is_coft_and_reads_no_label(trained: Run) -> None:
    built = trained("CoFTOracle")
    assert_same_bits(weights(trained("CoFT")), weights(built))
    assert built.labels_used == 0 and not built.label_free


def test_an_oracle_s_truth_is_that_of_its_images(run: Run) -> None:
    built = run("CoFTOracle", **of("COFTORACLE", {"KNOWS": "labels"}))
    assert_true(built, built.truth.tolist())
    for peer in built.method.peers.values():
        assert torch.equal(peer.labels.label, built.truth) and bool(peer.labels.keep.all())
    summary = json.loads((Path(built.output_dir) / "summary.json").read_text())
    assert summary["labels_used"] == 60 and "unlabeled" not in summary


@pytest.mark.parametrize("knows", ["filter", "seeds"])
def test_an_oracle_of_every_kind_reads_all_labels(run: Run, knows: str) -> None:
    built = run("CoFTOracle", train=False, **of("COFTORACLE", {"KNOWS": knows}))
    assert built.labels_used == 60
    built.method.begin()
    right = [
        built.truth[i] == label
        for peer in built.method.peers.values()
        for i, label in zip(peer.seeds.index.tolist(), peer.seeds.label.tolist(), strict=True)
    ]
    assert right and (all(right) or knows == "filter")


def test_an_oracle_whose_labels_are_noisy_reads_all_labels(run: Run) -> None:
    built = run("CoFTOracle", **of("COFTORACLE", {"NOISE": "uniform"}))
    assert built.labels_used == 60
    for peer in built.method.peers.values():
        wrong = [int((peer.labels.label != built.truth)[built.truth == c].sum()) for c in range(3)]
        assert wrong == [13, 13, 13]  # 2 of 3, of 20 images each
    rows = (Path(built.output_dir) / "pseudo_labels.csv").read_text().splitlines()
    assert len(rows) == 61
