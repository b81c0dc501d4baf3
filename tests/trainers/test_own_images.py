"""Trainers on a user's folder of images: predictions always, accuracy only with LABELS_FROM_FOLDERS."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from coft.core.errors import UserError
from coft.engine.predictions import count_by_class, known_accuracy
from dassl.engine import TRAINER_REGISTRY
from tests.coft.toys import assert_same_bits
from tests.conftest import CLASSNAMES, draw
from tests.trainers.conftest import OURS, weights
from tests.trainers.runs import Run, read_rows, read_summary

FREE = [name for name in OURS if not TRAINER_REGISTRY.get(name).spec.learns_from_labels]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSNAMES):
        (folder / name).mkdir()
        for i in range(8):
            Image.fromarray(draw(label, rng)).save(folder / name / f"{i}.png")
    (folder / "broken.png").write_bytes(b"x")
    return folder


@pytest.fixture
def settings(folder: Path) -> dict[str, Any]:
    return {"DATASET__NAME": "Folder", "DATASET__IMAGES": folder, "DATASET__CLASSES": ", ".join(CLASSNAMES)}


@pytest.mark.parametrize("trainer", ["CoFT", "UPL", "LaFTer", "TrainingFree", "ZeroshotCLIP"])
def test_predictions_are_written_without_an_accuracy(
    trainer: str, run: Run, settings: dict[str, Any], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built = run(trainer, **settings)
    rows = read_rows(tmp_path / "out" / "predictions.csv")
    assert [row["path"] for row in rows] == sorted(str(path) for path in folder.glob("*/*.png"))
    assert {row["class"] for row in rows} <= set(CLASSNAMES)
    assert all(1 / 3 <= float(row["confidence"]) <= 1 for row in rows)
    assert read_rows(tmp_path / "out" / "skipped.csv")[0]["path"] == str(folder / "broken.png")
    results = read_summary(built)["results"]
    assert not [key for key in results if "accuracy" in key] and results["predicted"] == 24
    reported = capsys.readouterr().out
    assert "there is no accuracy to report" in reported
    if trainer.startswith("CoFT"):
        listed = reported[reported.rindex("─┘") :].split()[1:]
        assert [Path(path).name for path in listed[:3]] == ["report.html", "predictions.csv", "skipped.csv"]
    assert math.isnan(built.test())


def test_folder_names_change_the_evaluation_only(run: Run, settings: dict[str, Any], tmp_path: Path) -> None:
    unlabeled = run("CoFT", out="without", **settings)
    labeled = run("CoFT", out="named", **settings, DATASET__LABELS_FROM_FOLDERS=True)
    assert_same_bits(weights(unlabeled), weights(labeled))
    rows = read_rows(tmp_path / "named" / "predictions.csv")
    correct = sum(row["class"] == Path(row["path"]).parent.name for row in rows)
    summary = read_summary(labeled)
    assert summary["results"]["accuracy_test"] == pytest.approx(100 * correct / 24)
    assert "predicted as well" in summary["unlabeled"]


@pytest.mark.parametrize("trainer", sorted(set(OURS) - set(FREE)))
def test_trainers_that_learn_from_labels_are_refused(trainer: str, run: Run, settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"{trainer} learns from labels, and your own images have none"):
        run(trainer, **settings, DATASET__LABELS_FROM_FOLDERS=True)


def test_indexed_images_are_not_read_again(run: Run, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first = run("UPL", train=False, **settings)
    from coft.images.unlabeled import UnlabeledPool
    from datasets.folder import Folder

    data, reads = Folder(first.cfg), list[Any]()
    monkeypatch.setattr("coft.images.unlabeled.read_bytes", lambda path: reads.append(path))
    pool = UnlabeledPool([item.impath for item in data.train_u], hashes=data.content_hashes)
    assert pool.digest == first.images.digest and pool.paths == first.images.pool.paths and not reads


@pytest.mark.parametrize("trainer", ["CoFTPlus", "LaFTer"])
def test_descriptions_in_the_class_file_are_used(
    trainer: str, run: Run, settings: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = run(trainer, train=False, out="plain", **settings)
    assert "continues without descriptions: your classes have none" in caplog.text
    (tmp_path / "classes").write_text("red circle\tA red circle, round.\ngreen square\tA green square.\nblue stripes\n")
    described = run(trainer, train=False, out="described", **(settings | {"DATASET__CLASSES": tmp_path / "classes"}))
    assert "Classes without a description, which others have: blue stripes" in caplog.text
    if trainer == "CoFTPlus":
        assert plain.method.describe is None and described.method.described.shape == (3, 32)
        assert not torch.equal(plain.method.zero_shot_text(), described.method.zero_shot_text())
    else:
        numbers = [[len(texts) for texts in built.method.texts()] for built in (plain, described)]
        assert numbers[1] == [n + 1 for n in numbers[0]]


def test_accuracy_ignores_images_without_a_label() -> None:
    predicted, label = torch.tensor([0, 1, 2, 1]), torch.tensor([0, -1, 1, 1])
    assert known_accuracy(predicted, label) == pytest.approx(200 / 3)
    assert known_accuracy(predicted, torch.full((4,), -1)) is None
    assert count_by_class(["a", "b", "c"], predicted) == "b 2, a 1, c 1"
