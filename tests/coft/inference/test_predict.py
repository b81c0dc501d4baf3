"""`coft predict`: rows, broken files, sorting and bad arguments."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from coft.inference import sorting, stream
from coft.inference.model import AdaptedModel
from coft.inference.predict import main
from coft.inference.sources import Source
from coft.inference.stream import predict_all
from tests.coft.inference.models import CLASSES

FOLDERS = dict(zip(CLASSES, ("tabby cat", "a_b_ _c_", "boat"), strict=True))


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def expected(model: AdaptedModel, path: Path) -> Any:
    return model.predict(model.batch([model.view(path)]))


def test_each_image_has_a_row_and_broken_files_are_named(
    finished_run: Path, model: AdaptedModel, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(finished_run), str(pictures)]) == 0
    printed = capsys.readouterr()
    rows = table(printed.out)
    assert [Path(row["path"]).name for row in rows] == [f"{n:02}.png" for n in range(11)]
    for row in rows:
        prediction = expected(model, Path(row["path"]))
        confidences, labels = prediction.probabilities[0].topk(2)
        assert [row["class"], row["class_2"]] == [CLASSES[label] for label in labels.tolist()]
        assert float(row["confidence"]) == pytest.approx(float(confidences[0]), abs=2e-6)
        assert float(row["confidence_2"]) == pytest.approx(float(confidences[1]), abs=2e-6)
        assert float(row["p_clean"]) == pytest.approx(float(prediction.p_clean[0, labels[0]]), abs=2e-6)
    for name in ("cut.jpg", "empty.png", "gone.png"):
        assert f"skipped {pictures / name}: " in printed.err
    assert "Predicted 11 images" in printed.err and "skipped: 3" in printed.err


def test_json_lines_with_all_classes_are_written_to_a_file(
    finished_run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "lines.jsonl"
    flags = ["--top", "9", "--output", str(out)]
    assert main([str(finished_run / "model"), *flags, str(pictures / "0*.png")]) == 0
    assert not capsys.readouterr().out
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 8
    for line in lines:
        assert {guess["class"] for guess in line["top"]} == set(CLASSES)
        assert sum(guess["confidence"] for guess in line["top"]) == pytest.approx(1, abs=1e-5)
        assert (line["class"], line["confidence"]) == tuple(line["top"][0].values())


def test_a_format_that_contradicts_the_suffix_is_refused(
    finished_run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.csv"
    assert main([str(finished_run), str(pictures), "--format", "jsonl", "--output", str(out)]) == 2
    assert "--format jsonl" in capsys.readouterr().err and not out.exists()


def test_the_class_is_unsure_below_a_confidence(
    finished_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(finished_run), str(pictures)])
    plain = table(capsys.readouterr().out)
    middle = sorted(float(row["confidence"]) for row in plain)[5]
    main([str(finished_run), str(pictures), "--unsure", str(middle), "--top", "1"])
    captured = capsys.readouterr()
    rows = table(captured.out)
    assert f"unsure: {sum(row['class'] == 'unsure' for row in rows)}" in captured.err
    assert [row["likeliest"] for row in rows] == [row["class"] for row in plain]
    for row, before in zip(rows, plain, strict=True):
        assert row["class"] == ("unsure" if float(row["confidence"]) < middle else before["class"])
    assert 0 < sum(row["class"] == "unsure" for row in rows) < 11 and "class_2" not in rows[0]
    main([str(finished_run), str(pictures), "--unsure", str(middle), "--format", "jsonl"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [[line[key] for key in ("class", "likeliest")] for line in lines] == [
        [row[key] for key in ("class", "likeliest")] for row in rows
    ]


def test_images_of_unsupported_formats_are_counted(
    finished_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.HEIC", "more/b.heic", "c.nef", "notes.md"):
        (pictures / name).write_text("x")
    assert main([str(finished_run), str(pictures)]) == 0
    assert ".heic 2, .nef 1;" in capsys.readouterr().err


def test_the_default_of_unsure_is_a_half(
    finished_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = []
    for words in (["--unsure"], ["--unsure", "0.5"]):
        assert main([str(finished_run), str(pictures), *words]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] and "likeliest" in outputs[0].splitlines()[0]


def test_files_are_moved_and_restored(finished_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.lstat().st_ino for path in pictures.rglob("*") if not path.is_dir()}
    target = pictures / "sorted"
    assert main([str(finished_run), str(pictures), "--move", str(target)]) == 0
    printed = capsys.readouterr()
    for row in table(printed.out):
        assert row["moved_to"] == str(target / FOLDERS[row["class"]] / Path(row["path"]).name)
        assert Path(row["moved_to"]).is_file()
        assert not Path(row["path"]).exists()
    assert (pictures / "cut.jpg").exists()
    assert main([str(finished_run), str(pictures), "--move", str(target)]) == 0  # sorted files are left out
    second = capsys.readouterr().err
    assert "Predicted 0 images" in second and "--undo" not in second
    (journal,) = target.glob("sorted-*.jsonl")
    assert str(journal) in printed.err
    assert main(["--undo", str(target)]) == 0 and not target.exists()
    assert {path: path.lstat().st_ino for path in pictures.rglob("*") if not path.is_dir()} == before


def test_json_lines_have_the_path_of_the_link(
    finished_run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--format", "jsonl", "--link", str(tmp_path / "linked")]
    assert main([str(finished_run), str(pictures / "00.png"), *flags]) == 0
    printed = capsys.readouterr()
    line = json.loads(printed.out)
    assert Path(line["linked_to"]).readlink() == pictures / "00.png" and list(line)[-1] == "top"
    assert "Predicted 1 image in" in printed.err
    assert main(["--undo", str(tmp_path / "linked")]) == 0
    assert capsys.readouterr().err == "Undone: 1 file\n"


def test_control_characters_are_escaped_on_a_terminal_only(
    finished_run: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pictures / "\x1b[31m\r\u202e.png"
    path.write_bytes((pictures / "00.png").read_bytes())
    assert main([str(finished_run), str(path)]) == 0
    assert str(path) in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert main([str(finished_run), str(path)]) == 0
    _, row, end = capsys.readouterr().out.split("\n")
    assert r"\x1b[31m\r\u202e.png" in row and row.isprintable() and end == ""


def test_a_terminal_shows_counts_instead_of_rows_while_files_are_sorted(
    finished_run: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert main([str(finished_run), str(pictures), "--link", str(tmp_path / "links")]) == 0
    printed = capsys.readouterr()
    counts = {folder: len(list((tmp_path / "links").glob(f"{folder}/*"))) for folder in FOLDERS.values()}
    assert printed.out == "" and sum(counts.values()) == 11
    assert all(f"{folder} {count}" in printed.err for folder, count in counts.items() if count)


def test_files_are_moved_though_the_pipe_is_closed(
    finished_run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", buffering=1) as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main([str(finished_run), str(pictures), "--move", str(tmp_path / "sorted")]) == 0
    assert len(list((tmp_path / "sorted").glob("*/*.png"))) == 11


def test_files_that_cannot_be_moved_are_counted_and_the_rest_is_restored(
    finished_run: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A file that is named twice is moved once; the printed command undoes all moves."""
    before, target, move = sorted(pictures.rglob("*")), tmp_path / "sorted files", sorting.move

    def refused(start: Path, to: Path) -> None:
        if start.name in ("03.png", "05.png"):
            raise PermissionError(13, "Permission denied")
        move(start, to)

    monkeypatch.setattr(sorting, "move", refused)
    words = [str(pictures / "00.png"), str(pictures), str(pictures / "01.png")]
    assert main([str(finished_run), *words, "--move", str(target)]) == 1
    printed = capsys.readouterr()
    rows = table(printed.out)
    assert len(rows) == 11 and len(list(target.rglob("*.png"))) == 9
    assert {Path(row["path"]).name for row in rows if not row["moved_to"]} == {"03.png", "05.png"}
    *_, counts, _, last = printed.err.splitlines()
    assert counts.endswith("skipped: 3; not moved: 2")
    assert main(shlex.split(last.partition("coft predict ")[2])) == 0
    assert sorted(pictures.rglob("*")) == before and not target.exists()


def test_only_a_limited_number_of_images_is_read_ahead(
    model: AdaptedModel, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0

    def endless() -> Any:
        nonlocal count
        while True:
            count += 1
            yield Source(str(count), pictures / "00.png")

    predictions = predict_all(model, endless(), batch_size=4)
    for number in range(1, 40):
        assert next(predictions).source.shown == str(number)
        assert count <= number + 4 * (stream.AHEAD + 1) + 1
    predictions.close()  # type: ignore[attr-defined]


def test_predictions_are_in_the_order_of_the_images(model: AdaptedModel, pictures: Path) -> None:
    paths = sorted(pictures.rglob("*.png")) * 3
    outcomes = list(predict_all(model, [Source(str(i), path) for i, path in enumerate(paths)], batch_size=5))
    assert [outcome.source.shown for outcome in outcomes] == [str(i) for i in range(len(paths))]
    for outcome in outcomes:
        if not outcome.problem:
            single = expected(model, outcome.source.path).probabilities[0]
            torch.testing.assert_close(outcome.probabilities, single)
    assert sum(bool(outcome.problem) for outcome in outcomes) == 6


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "RUN and IMAGES are required"),
        (["", "RUN"], "RUN is empty"),
        (["RUN", "no-such-image.png"], "no-such-image.png: there is no such file"),
        (["nowhere", "IMAGES"], "nowhere: no such folder; check the path"),
        (["EMPTY", "IMAGES"], "holds no model"),
        (["RUN", "IMAGES", "--top", "0"], "at least 1"),
        (["RUN", "IMAGES", "--move", "a", "--link", "b"], "not allowed with"),
        (["RUN", "EMPTY"], "there is no image"),
        (["RUN", "IMAGES", "--output", "FILE/out.csv"], "--output"),
        (["RUN", "--undo", "FILE"], "a journal alone"),
        (["--undo", "EMPTY"], "no journal is in this folder"),
        (["--undo", "EMPTY/gone.jsonl"], "there is no such file; a journal is removed once all is undone"),
    ],
)
def test_bad_arguments_are_refused(
    flags: list[str],
    message: str,
    finished_run: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    words = {"RUN": finished_run, "IMAGES": pictures, "EMPTY": tmp_path / "empty", "FILE": pictures / "notes.txt"}
    for key, value in words.items():
        flags = [flag.replace(key, str(value)) for flag in flags]
    assert main(flags) == 2
    printed = capsys.readouterr()
    assert not printed.out and printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert message in printed.err


def test_an_interrupt_leaves_no_half_written_file(
    finished_run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: Any) -> Any:
        yield from list(predict_all(*args))[:3]
        raise KeyboardInterrupt

    monkeypatch.setattr(stream, "predict_all", stopped)
    assert main([str(finished_run), str(pictures), "--output", str(tmp_path / "out.csv")]) == 130
    assert not list(tmp_path.glob("*out*"))


def test_a_pillow_image_is_read_like_its_file(model: AdaptedModel, tmp_path: Path) -> None:
    pixels = torch.arange(24 * 16 * 4).reshape(16, 24, 4).to(torch.uint8).numpy()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(pixels[..., :3].copy()).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(pixels).save(tmp_path / "transparent.png")
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert torch.equal(model.view(image), model.view(path))
