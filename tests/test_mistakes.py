"""Mistakes of users: one clear line, exit code 2, nothing half-written."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import train
from coft.core.lock import exclusive_lock
from tests.trainers.runs import QUICK

Call = Callable[..., str]
Arguments = Callable[..., list[str]]


@pytest.fixture
def root(shapes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shapes, tmp_path / "data"))


@pytest.fixture
def arguments(tmp_path: Path, root: Path, checkpoints: dict[str, Path]) -> Arguments:
    """Make the arguments of a short run; `flags` may set another output folder than "out"."""

    def make(
        *opts: str,
        trainer: str = "CoFT",
        backbone: str = "",
        flags: tuple[str, ...] = (),
        quick: tuple[str, ...] = QUICK,
    ) -> list[str]:
        argv = ["--trainer", trainer, "--root", str(root), "--output-dir", str(tmp_path / "out"), "--seed", "1", *flags]
        return [*argv, "--backbone", backbone or str(checkpoints["resnet"]), "DATASET.NAME", "Shapes", *quick, *opts]

    return make


@pytest.fixture
def fails(tmp_path: Path, arguments: Arguments, capfd: pytest.CaptureFixture[str]) -> Call:
    """Run train.py, which must end with exit code 2. Returns its error message."""

    def call(*opts: str, keeps_folder: bool = False, **changes: Any) -> str:
        out = tmp_path / "out"
        capfd.readouterr()
        assert train.main(arguments(*opts, **changes)) == 2
        error = capfd.readouterr().err.strip().splitlines()
        assert len(error) == 1 and error[0].startswith("error: "), error
        assert out.exists() == keeps_folder
        return error[0]

    return call


def test_unknown_names_get_a_suggestion(fails: Call) -> None:
    assert "did you mean 'CoFT'?" in fails(trainer="COFT")
    assert "did you mean 'Shapes'?" in fails("DATASET.NAME", "Shape")
    assert "did you mean 'embedded'?" in fails(backbone="embeded")
    assert "ViT-B16" in fails(backbone="open_clip:ViT-B16/openai")
    assert "nowhere" in fails(backbone="open_clip:./nowhere")


def test_unknown_keys_and_wrong_types(fails: Call, tmp_path: Path) -> None:
    assert "did you mean 'TRAINER.COFT.FILTER'?" in fails("TRAINER.COFT.FILTR", "x")
    assert "OPTIM.LR is 'fast'; expected a number of at least 0" in fails("OPTIM.LR", "fast")
    assert "OPTIM.LR" in fails("OPTIM.LR")
    (tmp_path / "wrong.yaml").touch()
    assert "no such file; did you mean" in fails(flags=("--config-file", str(tmp_path / "wrog.yaml")))


def test_output_folder_that_cannot_be_created(fails: Call, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in ("file", "file/below"):
        line = fails(flags=("--output-dir", str(tmp_path / place)))
        assert f"--output-dir {tmp_path / place}: the folder cannot be created" in line


def test_wrong_flags(fails: Call) -> None:
    assert "argument --seed: " in fails(flags=("--seed", "abc"))
    assert "--model-dir: " in fails(flags=("--model-dir", "."))
    assert "--load-epoch: " in fails(flags=("--load-epoch", "0"))
    assert "--resume: " in fails(flags=("--eval-only", "--resume", "."))


def test_folder_of_another_experiment_is_refused(fails: Call, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    other = {"DATASET": {"NAME": "Shapes"}, "OPTIM": {"LR": 5.0}, "TRAINER": {"NAME": "UPL"}}
    (folder / "config.yaml").write_text(json.dumps(other))
    (folder / "summary.json").touch()
    assert "TRAINER.NAME is 'UPL' there, 'CoFT' here" in fails(keeps_folder=True)


def test_a_failed_run_leaves_only_the_files_of_others(fails: Call, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "mine.txt").touch()
    options = ("OPTIM.LR", "1e30", "TRAINER.COFT.PHASE1.MIN_STEPS", "9", "TRAIN.GUARD", "False")
    assert "lower the learning rate" in fails(*options, keeps_folder=True)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_folder_without_results_is_reused(tmp_path: Path, arguments: Arguments) -> None:
    out = tmp_path / "out.txt"  # a folder in spite of its name
    out.mkdir()
    other = {"DATASET": {"NAME": "Shapes"}, "MODEL": {"BACKBONE": {"NAME": "x"}}, "TRAINER": {"NAME": "UPL"}}
    (out / "config.yaml").write_text(json.dumps(other))
    (out / "log.txt").write_text("earlier error")
    (out / "metrics.csv").write_text("epoch,stage\n0,zero-shot\n")
    assert train.main(arguments(trainer="ZeroshotCLIP", flags=("--output-dir", str(out)), quick=())) == 0
    assert "ZeroshotCLIP" in (out / "config.yaml").read_text() and "earlier error" not in (out / "log.txt").read_text()


def test_folder_in_use_is_refused(fails: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coft.core.lock.PATIENCE", 0.3)
    (tmp_path / "out").mkdir()
    wait = time.sleep
    with exclusive_lock(tmp_path / "out"), monkeypatch.context() as patch:
        begins = (tmp_path / "out" / "log.txt").touch  # the other process has just started
        patch.setattr("coft.core.lock.time.sleep", lambda seconds: begins() or wait(seconds))
        assert "is in use by another process" in fails(keeps_folder=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["log.txt"]
    shutil.rmtree(tmp_path / "out")
    assert "unknown name" in fails(trainer="COFT")


def test_empty_folders_are_removed_after_a_mistake(root: Path, tmp_path: Path, fails: Call) -> None:
    (tmp_path / "kept").mkdir()
    (root / "images" / "train_1_0.png").unlink()
    assert "is missing" in fails(flags=("--output-dir", str(tmp_path / "kept" / "a" / "b" / "c")))
    assert (tmp_path / "kept").is_dir() and not any((tmp_path / "kept").iterdir())


@pytest.mark.parametrize("part", ["train", "test"])
def test_unreadable_or_missing_image_is_named(fails: Call, root: Path, part: str) -> None:
    image = root / "images" / f"{part}_1_0.png"
    image.write_bytes(image.read_bytes()[:100])
    assert f"image {image} cannot be read" in fails()
    image.unlink()
    assert f"image {image} is missing" in fails()


def test_unreadable_image_is_named_by_loader_workers(fails: Call, root: Path) -> None:
    (root / "images" / "test_1_0.png").write_bytes(b"")
    assert "test_1_0.png cannot be read" in fails("DATALOADER.NUM_WORKERS", "1")


def test_quiet_run_prints_only_warnings(
    tmp_path: Path, arguments: Arguments, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(arguments(flags=("--quiet",))) == 0
    shown, log = capfd.readouterr(), (tmp_path / "out" / "log.txt").read_text()
    assert (shown.out + shown.err).splitlines() == [line for line in log.splitlines() if line.startswith("Warning: ")]
    assert "** Config **" in log and "[phase1] epoch 1" in log


def test_folder_accepts_only_the_same_settings(
    fails: Call, arguments: Arguments, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert train.main(arguments()) == 0
    shown = capfd.readouterr()
    assert "[phase1] epoch 1" in shown.out + shown.err and "** Config **" not in shown.out + shown.err
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    assert "TRAINER.COFT.FILTER is 'min-p-clean' there, 'own' here" in fails(
        "TRAINER.COFT.FILTER", "own", keeps_folder=True
    )
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    summary = json.loads((out / "summary.json").read_text())
    assert train.main(arguments("DATALOADER.NUM_WORKERS", "1")) == 0
    again = json.loads((out / "summary.json").read_text())
    assert again["results"]["accuracy_test"] == summary["results"]["accuracy_test"]


def test_labels_of_test_images_are_not_learned_from(fails: Call, root: Path) -> None:
    split = json.loads((root / "split.json").read_text())
    (root / "split.json").write_text(json.dumps(split | {"train": []}))
    assert "data set Shapes has test images alone" in fails(trainer="CoOp", quick=())


def test_an_evaluation_does_not_replace_files_of_others(
    tmp_path: Path, arguments: Arguments, capfd: pytest.CaptureFixture[str]
) -> None:
    trained, folder = tmp_path / "trained", tmp_path / "mine"
    assert train.main(arguments(trainer="ZeroshotCLIP", flags=("--output-dir", str(trained)), quick=())) == 0
    folder.mkdir()
    (folder / "test_predictions.csv").write_text("precious")
    flags = ("--output-dir", str(folder), "--eval-only", "--model-dir", str(trained))
    assert train.main(arguments(trainer="ZeroshotCLIP", flags=flags, quick=())) == 2
    assert "has test_predictions.csv and no config.yaml" in capfd.readouterr().err
    assert [path.read_text() for path in folder.iterdir()] == ["precious"]
    (folder / "test_predictions.csv").unlink()
    for _ in range(2):  # an evaluation may be repeated
        assert train.main(arguments(trainer="ZeroshotCLIP", flags=flags, quick=())) == 0
