from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import train
from coft.core.errors import UserError
from scripts.launch import ROOT
from scripts.picture import by_turns, draw_picture, picture, predictions


def table(tmp_path: Path) -> pd.DataFrame:
    """Five images of two classes; one is mended, one is wrong."""
    Image.new("L", (8, 8), 200).save(tmp_path / "a.png")
    classes, before, after = ["x", "x", "y", "x", "y"], ["y", "x", "x", "x", "y"], ["x", "x", "x", "x", "y"]
    kinds = ["mended", "right", "wrong", "right", "right"]
    rows = zip(classes, before, after, kinds, strict=True)
    return pd.DataFrame([(str(tmp_path / "a.png"), *row) for row in rows], columns=COLUMNS)


COLUMNS = ["path", "class", "zero_shot", "run", "kind"]


def test_classes_take_turns() -> None:
    images = pd.DataFrame({"class": ["b", "b", "a", "a", "a"], "path": list("12345")})
    assert list(by_turns(images, 4)["path"]) == ["3", "1", "4", "2"]


def test_the_picture_counts_each_kind_and_shows_what_both_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

    texts: list[str] = []
    text, title = Axes.text, SubFigure.suptitle
    monkeypatch.setattr(Axes, "text", lambda self, x, y, s, **more: texts.append(s) or text(self, x, y, s, **more))
    monkeypatch.setattr(SubFigure, "suptitle", lambda self, s, **more: texts.append(s) or title(self, s, **more))
    path = draw_picture(tmp_path / "out.png", table(tmp_path), "CoFT", columns=2)
    with Image.open(path) as image:
        assert image.width > 100
    assert [t for t in texts if t.endswith("test images")] == [
        "Mended: zero-shot CLIP is wrong, CoFT is right: 1 of 5 test images",
        "Both are right: 3 of 5 test images",
        "CoFT is wrong: 1 of 5 test images",
    ]
    assert texts[1:4] == ["true: x", "CLIP: y \N{BALLOT X}", "CoFT: x \N{CHECK MARK}"]


def test_a_finished_run(tmp_path: Path, shapes: Path, checkpoints: dict[str, Path]) -> None:
    folder = tmp_path / "run"
    words = ["--root", str(shapes), "--seed", "1", "--trainer", "UPL", "--backbone", str(checkpoints["resnet"])]
    words += ["--output-dir", str(folder), "DATASET.NAME", "Shapes", "DATALOADER.NUM_WORKERS", "0"]
    assert train.main([*words, "OPTIM.MAX_EPOCH", "1", "TRAINER.UPL.SEEDS_PER_CLASS", "1"]) == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".txt"}
    found, name = predictions(folder)
    right = 100 * (found["run"] == found["class"]).mean()
    assert name == "UPL" and len(found) == 30
    assert right == pytest.approx(pd.read_json(folder / "summary.json", typ="series")["results"]["accuracy_test"])
    for row in found.to_dict("records"):
        is_right = row["run"] == row["class"], row["zero_shot"] == row["class"]
        assert row["kind"] == {(True, True): "right", (True, False): "mended"}.get(is_right, "wrong")
    assert picture([str(folder)]) == 0
    assert {path: path.read_bytes() for path in before} == before and (folder / "predictions.png").is_file()


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.yaml of a run"):
        picture([str(tmp_path)])


def test_the_script_calls_what_is_there() -> None:
    assert "scripts/picture.py" in (ROOT / "scripts" / "picture.sh").read_text()
