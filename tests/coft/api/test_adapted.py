"""`coft.Adapted`: exports and reports equal those of the commands; bad arguments are refused."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import coft
from coft.cli.main import main
from tests.coft.api.conftest import SHORT, make_quick, write_folder
from tests.conftest import CLASSNAMES


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapted") / "out"


@pytest.fixture(scope="module")
def adapted(output: Path, pictures: list[Any], checkpoints: dict[str, Path]) -> coft.Adapted:
    folder = write_folder(output.parent / "images", pictures)
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        return coft.adapt(folder, CLASSNAMES, str(checkpoints["resnet"]), output, progress=False, **SHORT)


def test_an_export_equals_that_of_the_command(adapted: coft.Adapted, output: Path, tmp_path: Path) -> None:
    lines = adapted.export(tmp_path / "by-python", "head", single=True)
    assert main(["export", str(output), "--to", "head", "--single", str(tmp_path / "by-command")]) == 0
    cards = [(tmp_path / name / "README.md").read_text().replace(name, "") for name in ("by-python", "by-command")]
    heads = [load_file(tmp_path / name / "head.safetensors") for name in ("by-python", "by-command")]
    assert cards[0] == cards[1] and all(torch.equal(heads[0][key], heads[1][key]) for key in ("weight", "clean"))
    assert "on 12 images" in lines[0] and "of 12 images" in lines[1]
    with pytest.raises(coft.UserError, match="is there already"):
        adapted.export(tmp_path / "by-python", "head")


def test_labels_that_are_read_again_equal_those_of_the_run(adapted: coft.Adapted, output: Path) -> None:
    pd.testing.assert_frame_equal(coft.Adapted.load(output).labels_, adapted.labels_)


def test_an_export_into_the_current_folder_is_written(
    adapted: coft.Adapted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    adapted.export(".", "head")
    assert (tmp_path / "here" / "head.safetensors").is_file()


def test_a_quiet_run_tells_the_user_nothing(
    output: Path,
    tmp_path: Path,
    checkpoints: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.NOTSET, "coft")  # as in a new process; `coft predict` lowers it
    short = [f"{name}={value}" for name, value in SHORT.items()]
    argv = [
        "adapt",
        str(output.parent / "images"),
        "--classes",
        ",".join(CLASSNAMES),
        "--output",
        str(tmp_path / "run"),
    ]
    assert main([*argv, "--backbone", str(checkpoints["resnet"]), "--quiet", *short]) == 0
    assert "CoFT on" not in (printed := capsys.readouterr()).err and "next:" not in printed.err
    assert "Images by class" in (tmp_path / "run" / "log.txt").read_text()


def test_a_model_without_a_folder_is_compared_on_its_training_images(
    folder: Path, pictures: list[Any], tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    images = sorted(str(path) for path in folder.rglob("*.png") if path.name != "broken.png")
    adapted = coft.adapt(images, CLASSNAMES, str(checkpoints["resnet"]), progress=False, **SHORT)
    assert "of 25 images" in adapted.export(tmp_path / "one", "head", peers="a")[0]
    array = np.stack([np.asarray(picture) for picture in pictures[:5]])
    assert "of 5 images" in adapted.export(tmp_path / "two", "head", peers="b", images=array)[0]
    weights = [load_file(tmp_path / name / "head.safetensors")["weight"] for name in ("one", "two")]
    assert weights[0].shape == weights[1].shape and not np.allclose(*weights)
    with pytest.raises(coft.UserError, match="give coft"):
        adapted.report()


def test_a_report_can_be_written_again(adapted: coft.Adapted, output: Path) -> None:
    page = output / "report.html"
    before = page.read_bytes()
    page.unlink()
    assert coft.Adapted.load(output).report() == page and page.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "onx"}, "to is 'onx'; did you mean 'onnx'"),
        ({"to": "head", "peers": "c"}, "peers is 'c'; "),
        ({"to": "head", "int8": True}, "--int8 requires --to onnx"),
        ({"to": "head", "peers": "a", "single": True}, "leave one of them out"),
        ({"to": "head", "single": True, "images": []}, "--single: .*--images"),
    ],
)
def test_bad_export_options_are_refused(
    options: dict[str, Any], message: str, adapted: coft.Adapted, tmp_path: Path
) -> None:
    with pytest.raises(coft.UserError, match=message):
        adapted.export(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".new*"))


def test_labels_csv_has_the_order_of_labels_(adapted: coft.Adapted, output: Path) -> None:
    rows = list(csv.DictReader((output / "labels.csv").open()))
    assert [row["path"] for row in rows] == list(adapted.labels_["path"])


@pytest.mark.parametrize("size", [0, -1, 1.5, "2", None, True, float("nan")])
def test_a_bad_batch_size_is_refused(size: Any, adapted: coft.Adapted) -> None:
    images = [np.zeros((64, 64), np.uint8)]
    for predict in (adapted.predict, adapted.predict_proba):
        with pytest.raises(coft.UserError, match=r"batch_size is .*; expected a whole number of at least 1"):
            predict(images, batch_size=size)


def test_bfloat16_tensors_are_accepted(adapted: coft.Adapted) -> None:
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = adapted.predict_proba(pixels.bfloat16().float())
    assert np.array_equal(adapted.predict_proba(pixels.bfloat16().requires_grad_()), expected)


@pytest.mark.parametrize("folder", [None, 5, "", b"a", "a\0b"])
def test_a_bad_folder_is_refused(folder: Any, adapted: coft.Adapted) -> None:
    for use in (adapted.save, adapted.export, coft.Adapted.load):
        with pytest.raises(coft.UserError, match=r"folder is .*; expected a path"):
            use(folder)


@pytest.mark.parametrize("device", ["x", None, 5, "cuda:99", "meta"])
def test_a_bad_device_is_refused(device: Any, adapted: coft.Adapted, tmp_path: Path) -> None:
    adapted.save(tmp_path)
    with pytest.raises(coft.UserError, match=r"device .* is not available"):
        coft.Adapted.load(tmp_path, device)


@pytest.mark.parametrize("content", ["", "path,class\n", "\0"])
def test_damaged_labels_are_refused(content: str, adapted: coft.Adapted, tmp_path: Path) -> None:
    adapted.save(tmp_path)
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(coft.UserError, match=r"labels\.csv: cannot be read"):
        coft.Adapted.load(tmp_path)
