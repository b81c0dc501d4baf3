"""Label-free is an invariant: what the unlabeled images' labels, order and names are changes no bit of any weight."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from coft.method import negative_head
from coft.runtime.errors import UserError
from tests.conftest import Shapes
from tests.trainers.conftest import assert_same_bits, weights

LABEL_FREE = [(trainer, backbone) for trainer in ("UPL", "CoFT", "CoFTPlus") for backbone in ("resnet", "vit")]


def permute_labels(split: dict[str, Any], folder: Path) -> None:
    labels = [row[1:] for row in split["train"]]
    random.Random(0).shuffle(labels)
    split["train"] = [[row[0], *label] for row, label in zip(split["train"], labels, strict=True)]


def blank_labels(split: dict[str, Any], folder: Path) -> None:
    split["train"] = [[row[0], -1, ""] for row in split["train"]]


def shuffle_files(split: dict[str, Any], folder: Path) -> None:
    random.Random(1).shuffle(split["train"])


def hash_names(split: dict[str, Any], folder: Path) -> None:
    for row in split["train"]:
        path = folder / "images" / row[0]
        row[0] = hashlib.sha256(path.read_bytes()).hexdigest() + ".png"
        path.rename(path.with_name(row[0]))


CHANGES = {"permuted": permute_labels, "blank": blank_labels, "shuffled": shuffle_files, "hashed names": hash_names}


def changes(trainer: str, backbone: str) -> list[str]:
    """Which changes a trainer is tried with: with another backbone than the first, for time, one of each kind."""
    return list(CHANGES) if trainer == "CoFT" or backbone == "resnet" else ["permuted", "hashed names"]


def changed(shapes: Path, target: Path, change: Callable[[dict[str, Any], Path], None]) -> Path:
    shutil.copytree(shapes, target)
    split = json.loads((target / "split.json").read_text())
    before = json.dumps(split)
    change(split, target)
    assert json.dumps(split) != before
    (target / "split.json").write_text(json.dumps(split))
    return target


@pytest.mark.parametrize(("trainer", "backbone"), LABEL_FREE)
def test_labels_order_and_names_change_no_bit(
    run: Callable[..., Any], shapes: Path, tmp_path: Path, trainer: str, backbone: str
) -> None:
    reference = weights(run(trainer, backbone, out="reference"))
    for name in changes(trainer, backbone):
        root = changed(shapes, tmp_path / name, CHANGES[name])
        assert_same_bits(reference, weights(run(trainer, backbone, root=root, out=f"out {name}")))


def test_nor_where_negative_vectors_are_fitted_to_images_that_are_drawn(
    run: Callable[..., Any], shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negative_head, "BATCH", 4)
    monkeypatch.setattr(negative_head, "MOST", 8)
    reference = weights(run("CoFT", out="reference"))
    for name in ("permuted", "shuffled"):
        root = changed(shapes, tmp_path / name, CHANGES[name])
        assert_same_bits(reference, weights(run("CoFT", root=root, out=f"out {name}")))


@pytest.mark.parametrize("backbone", ["resnet", "vit"])
def test_nor_where_classes_are_described(
    run: Callable[..., Any], shapes: Path, tmp_path: Path, described: Path, backbone: str
) -> None:
    """CoFT+ with all three parts."""
    key = {"TRAINER__COFTPLUS__DESCRIPTIONS__FROM": str(described)}
    reference = weights(run("CoFTPlus", backbone, out="reference", **key))
    plain = weights(run("CoFTPlus", backbone, out="plain"))
    assert any(not torch.equal(reference[name], plain[name]) for name in reference)  # descriptions are read
    for name in changes("CoFTPlus", backbone):
        root = changed(shapes, tmp_path / name, CHANGES[name])
        assert_same_bits(reference, weights(run("CoFTPlus", backbone, root=root, out=f"out {name}", **key)))


@pytest.mark.parametrize(("trainer", "backbone"), [("UPL", "resnet"), ("CoFT", "resnet")])
def test_the_seed_changes_weights(run: Callable[..., Any], trainer: str, backbone: str) -> None:
    """The comparison above could see a difference if there were one."""
    one, two = (weights(run(trainer, backbone, out=f"seed{seed}", SEED=seed)) for seed in (1, 2))
    assert any(not torch.equal(one[key], two[key]) for key in one)


def test_labels_do_change_a_trainer_that_uses_them(run: Callable[..., Any], shapes: Path, tmp_path: Path) -> None:
    reference = weights(run("CoOp", out="reference"))
    permuted = weights(run("CoOp", root=changed(shapes, tmp_path / "permuted", permute_labels), out="permuted"))
    assert any(not torch.equal(reference[key], permuted[key]) for key in reference)


def test_images_that_were_chosen_by_labels_are_refused(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shapes, "train_u", property(lambda self: None))  # as data sets in CoOp's style are
    assert len(run("UPL", train=False).pool) == 60
    with pytest.raises(UserError, match=r"DATASET\.NUM_SHOTS 4 leaves Shapes .* UPL reads no label"):
        run("UPL", train=False, out="few", DATASET__NUM_SHOTS=4)
    monkeypatch.undo()
    assert len(run("UPL", train=False, out="all", DATASET__NUM_SHOTS=4).pool) == 60


def test_classes_left_out_by_labels_are_told(run: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    run("UPL", train=False, DATASET__SUBSAMPLE_CLASSES="base")
    assert "DATASET.SUBSAMPLE_CLASSES base leaves out images of other classes, by their labels" in caplog.text
