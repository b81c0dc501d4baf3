"""Broken images, hostile names, a full disk, two commands at once: they are named, and nothing is half-written."""

from __future__ import annotations

import csv
import io
import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from coft.inference.export import write
from coft.inference.export.command import main as export
from coft.inference.predict import main as predict
from coft.inference.store import save
from tests.coft.inference.models import make_model

HOSTILE = ("<script>alert(1)</script>", "../../etc/passwd", 'a "quoted", `name` | [x](y)')


def encoded(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(file, kind, **options)
    return file.getvalue()


BROKEN = {
    "empty.png": b"",
    "text.jpg": b"this is no image",
    "cut.jpg": encoded("JPEG")[:200],
    "cut.png": encoded("PNG")[:200],
    "program.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    "a\nbreak.png": b"x",
    "\udcff.png": b"x",
}


def test_broken_images_of_any_kind_are_named_and_passed_over(
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


def test_names_of_classes_are_data(
    hostile_run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "sorted"
    assert predict([str(hostile_run), str(pictures), "--link", str(target)]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 11 and {row["class"] for row in rows} <= set(HOSTILE)
    parents = {path.parent.parent for path in target.rglob("*.png")}
    assert parents == {target}, "a folder for each class, and none elsewhere"
    assert export([str(hostile_run), "--to", "head", str(tmp_path / "head")]) == 0
    card = (tmp_path / "head" / "README.md").read_text()
    assert "<script" not in card and "| [x](y)" not in card
    flags = [str(hostile_run), "--format", "jsonl", "--output", str(tmp_path / "lines"), str(pictures / "0*.png")]
    assert predict(flags) == 0
    assert {json.loads(line)["class"] for line in (tmp_path / "lines").read_text().splitlines()} <= set(HOSTILE)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Context in which no file grows beyond a size, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_images_without_a_name_are_not_the_folder_one_stands_in(
    finished_run: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(pictures)
    assert predict([str(finished_run), "", "--move", str(pictures / "sorted")]) == 2
    assert "a name of images is empty" in capsys.readouterr().err and (pictures / "00.png").exists()


@pytest.mark.parametrize("to", ["open_clip", "onnx"])
def test_an_export_to_a_full_disk_leaves_nothing(
    to: str, finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with files_of_at_most(20_000):
        assert export([str(finished_run), "--to", to, str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "cannot be written" in printed and "check the disk" in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["open_clip", "onnx", "head"])
def test_an_export_is_not_called_what_libraries_do_not_take(
    to: str, finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export([str(finished_run), "--to", to, str(tmp_path / "caf\udce9")]) == 2
    assert "is no name in UTF-8; choose another folder" in capsys.readouterr().err
    assert not (tmp_path / "caf\udce9").exists()


def test_a_run_in_a_folder_that_is_called_no_text_is_used(finished_run: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(finished_run, tmp_path / "caf\udce9")
    Image.effect_noise((32, 32), 80).save(tmp_path / "one.png")
    assert predict([str(moved), str(tmp_path / "one.png"), "--output", str(tmp_path / "found.csv")]) == 0
    assert len((tmp_path / "found.csv").read_text().splitlines()) == 2


def test_predictions_to_a_full_disk_leave_the_file_that_was_there(
    finished_run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out.csv").write_text("before")
    with files_of_at_most(300):
        assert predict([str(finished_run), str(pictures), "--output", str(tmp_path / "out.csv")]) == 2
    assert "--output" in capsys.readouterr().err.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "pictures"]
    assert (tmp_path / "out.csv").read_text() == "before"


def test_of_two_exports_to_one_folder_the_first_stays(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def meanwhile(*args: Any) -> str:
        out.mkdir()
        (out / "head.safetensors").write_text("of the other command")
        return "card"

    monkeypatch.setattr(write, "card", meanwhile)
    assert export([str(finished_run), "--to", "head", str(out)]) == 2
    assert "another command has written to it" in capsys.readouterr().err
    assert [path.read_text() for path in out.iterdir()] == ["of the other command"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
