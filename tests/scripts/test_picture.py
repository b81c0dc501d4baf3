from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import train
from scripts.picture import picture, predictions, round_robin


def test_images_alternate_between_classes() -> None:
    images = pd.DataFrame({"class": ["b", "b", "a", "a", "a"], "path": list("12345")})
    assert list(round_robin(images, 4)["path"]) == ["3", "1", "4", "2"]


def test_picture_of_a_finished_run(tmp_path: Path, shapes: Path, checkpoints: dict[str, Path]) -> None:
    folder = tmp_path / "run"
    arguments = ["--root", str(shapes), "--seed", "1", "--trainer", "UPL", "--backbone", str(checkpoints["resnet"])]
    arguments += ["--output-dir", str(folder), "DATASET.NAME", "Shapes", "DATALOADER.NUM_WORKERS", "0"]
    assert train.main([*arguments, "OPTIM.MAX_EPOCH", "1", "TRAINER.UPL.SEEDS_PER_CLASS", "1"]) == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".txt"}
    predicted, name = predictions(folder)
    accuracy = 100 * (predicted["run"] == predicted["class"]).mean()
    assert name == "UPL" and len(predicted) == 18
    assert accuracy == pytest.approx(pd.read_json(folder / "summary.json", typ="series")["results"]["accuracy_test"])
    for row in predicted.to_dict("records"):
        is_right = row["run"] == row["class"], row["zero_shot"] == row["class"]
        assert row["kind"] == {(True, True): "right", (True, False): "corrected"}.get(is_right, "wrong")
    assert picture([str(folder)]) == 0
    assert {path: path.read_bytes() for path in before} == before and (folder / "predictions.png").is_file()
