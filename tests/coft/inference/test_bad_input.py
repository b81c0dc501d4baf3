"""Broken images, hostile names, full disks and concurrent commands: clear errors and no half-written files."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from coft.inference.export import write
from coft.inference.export.command import main as export
from coft.inference.predict import main as predict
from coft.inference.store import save
from tests.coft.inference.conftest import limit_file_size
from tests.coft.inference.models import make_model

HOSTILE = ("<script>alert(1)</script>", "../../etc/passwd", 'a "quoted", `name` | [x](y)')


def encode_noise(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(file, kind, **options)
    return file.getvalue()


BROKEN = {
    "empty.png": b"",
    "text.jpg": b"this is no image",
    "cut.jpg": encode_noise("JPEG")[:200],
    "cut.png": encode_noise("PNG")[:200],
    "program.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    "a\nbreak.png": b"x",
    "\udcff.png": b"x",
}


def test_broken_images_are_named_and_skipped(
    finished_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, data in BROKEN.items():
        (pictures / "more" / name).write_bytes(data)
    (pictures / "folder.png").mkdir()
    assert predict([str(finished_run), str(pictures)]) == 0
    printed = capsys.readouterr()
    assert len(list(csv.DictReader(io.StringIO(printed.out)))) == 11
    lines = [line for line in printed.err.splitlines() if line.startswith("skipped ")]
    assert len(lines) == len(BROKEN) + 3 and f"skipped: {len(lines)}" in printed.err
    for name in BROKEN:
        (line,) = [line for line in lines if f"more/{name!r}".replace("'", "") in line]
        assert line.partition(": ")[2].strip(), line


@pytest.fixture
def hostile_run(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    save(make_model(checkpoints["resnet"], classes=HOSTILE), tmp_path / "hostile" / "model")
    return tmp_path / "hostile"


def test_hostile_class_names_are_escaped(
    hostile_run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "sorted"
    assert predict([str(hostile_run), str(pictures), "--link", str(target)]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 11 and {row["class"] for row in rows} <= set(HOSTILE)
    parents = {path.parent.parent for path in target.rglob("*.png")}
    assert parents == {target}  # no folder elsewhere
    assert export([str(hostile_run), "--to", "head", str(tmp_path / "head")]) == 0
    card = (tmp_path / "head" / "README.md").read_text()
    assert "<script" not in card and "| [x](y)" not in card
    flags = [str(hostile_run), "--format", "jsonl", "--output", str(tmp_path / "lines"), str(pictures / "0*.png")]
    assert predict(flags) == 0
    assert {json.loads(line)["class"] for line in (tmp_path / "lines").read_text().splitlines()} <= set(HOSTILE)


def test_an_empty_image_name_is_refused(
    finished_run: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(pictures)
    assert predict([str(finished_run), "", "--move", str(pictures / "sorted")]) == 2
    assert "a name of images is empty" in capsys.readouterr().err and (pictures / "00.png").exists()


@pytest.mark.parametrize("to", ["open_clip", "onnx"])
def test_an_export_to_a_full_disk_leaves_nothing(
    to: str, finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with limit_file_size(20_000):
        assert export([str(finished_run), "--to", to, str(tmp_path / "new" / "parent" / "out")]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "cannot be written" in printed
    assert ("see to the path and the disk" if to == "open_clip" else "make room") in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["open_clip", "onnx", "head"])
def test_an_export_name_that_is_not_utf8_is_refused(
    to: str, finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export([str(finished_run), "--to", to, str(tmp_path / "caf\udce9")]) == 2
    assert "is no name in UTF-8; choose another folder" in capsys.readouterr().err
    assert not (tmp_path / "caf\udce9").exists()


def test_predictions_to_a_full_disk_leave_the_old_file(
    finished_run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out.csv").write_text("before")
    with limit_file_size(300):
        assert predict([str(finished_run), str(pictures), "--output", str(tmp_path / "out.csv")]) == 2
    assert "--output" in capsys.readouterr().err.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "pictures"]
    assert (tmp_path / "out.csv").read_text() == "before"


def test_an_export_does_not_overwrite_a_concurrent_one(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def write_meanwhile(*args: Any) -> str:
        out.mkdir()
        (out / "head.safetensors").write_text("of the other command")
        return "card"

    monkeypatch.setattr(write, "card", write_meanwhile)
    assert export([str(finished_run), "--to", "head", str(out)]) == 2
    assert "another command has written to it" in capsys.readouterr().err
    assert [path.read_text() for path in out.iterdir()] == ["of the other command"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
