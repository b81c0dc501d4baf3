"""A user's mistake gets one clear line, exit code 2, and leaves nothing half-written."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import train
from coft.core.lock import sole

Call = Callable[..., str]
QUICK = [
    *("TRAINER.COFT.SEEDS_PER_CLASS", "2", "TRAINER.COFT.PHASE1.EPOCHS", "1", "TRAINER.COFT.PHASE1.MIN_STEPS", "2"),
    *("TRAINER.COFT.PHASE2.EPOCHS", "1", "TRAINER.COFT.PHASE2.REFRESH", "1", "DATALOADER.NUM_WORKERS", "0"),
    *("OPTIM.NAME", "sgd", "OPTIM.LR", "0.01"),
]


@pytest.fixture
def root(shapes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shapes, tmp_path / "data"))


@pytest.fixture
def fails(tmp_path: Path, root: Path, checkpoints: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> Call:
    """Run train.py, which must end with exit code 2; returns its one line."""

    def call(
        *opts: str, trainer: str = "CoFT", backbone: str = "", flags: tuple[str, ...] = (), left: bool = False
    ) -> str:
        out = tmp_path / "out"
        argv = ["--trainer", trainer, "--root", str(root), "--output-dir", str(out), "--seed", "1", *flags]
        argv += ["--backbone", backbone or str(checkpoints["resnet"]), "DATASET.NAME", "Shapes", *QUICK, *opts]
        capfd.readouterr()
        assert train.main(argv) == 2
        error = capfd.readouterr().err.strip().splitlines()
        assert len(error) == 1 and error[0].startswith("error: "), error
        assert out.exists() == left
        return error[0]

    return call


def test_unknown_names_get_the_nearest(fails: Call) -> None:
    assert "--trainer: unknown name 'COFT'; did you mean 'CoFT'?" in fails(trainer="COFT")
    assert "DATASET.NAME: unknown name 'Shape'; did you mean 'Shapes'?" in fails("DATASET.NAME", "Shape")
    assert "unknown backbone 'embeded'; did you mean 'embedded'?" in fails(backbone="embeded")
    assert "open_clip has no model 'ViT-B16'" in fails(backbone="open_clip:ViT-B16/openai")
    assert "nowhere is not there; give a folder as open_clip writes it" in fails(backbone="open_clip:./nowhere")


def test_keys_that_do_not_exist_or_have_the_wrong_type(fails: Call, tmp_path: Path) -> None:
    assert "unknown config key 'TRAINER.COFT.FILTR'; did you mean 'TRAINER.COFT.FILTER'?" in fails(
        "TRAINER.COFT.FILTR", "x"
    )
    assert "OPTIM.LR is 'fast'; expected a number, at least 0" in fails("OPTIM.LR", "fast")
    assert "TRAINER.COFT.SEEDS_PER_CLASS is 'many'; expected a whole number" in fails(
        "TRAINER.COFT.SEEDS_PER_CLASS", "many"
    )
    assert "OPTIM.LR: a key without a value" in fails("OPTIM.LR")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("OPTIM:\n  LEARNING_RATE: 0.1\n")
    line = fails(flags=("--config-file", str(wrong)))
    assert "wrong.yaml: unknown config key 'OPTIM.LEARNING_RATE'" in line
    wrong.write_text("OPTIM:\n  LR: fast\n")
    assert "wrong.yaml: OPTIM.LR is 'fast'; expected a number" in fails(flags=("--config-file", str(wrong)))
    wrong.write_text("OPTIM: [")
    assert "wrong.yaml: " in fails(flags=("--config-file", str(wrong)))
    assert "no such file; did you mean" in fails(flags=("--config-file", str(tmp_path / "wrog.yaml")))


def test_an_output_folder_that_cannot_be(fails: Call, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in ("file", "file/below"):
        line = fails(flags=("--output-dir", str(tmp_path / place)))
        assert f"--output-dir {tmp_path / place}: no folder can be there" in line


def test_flags_that_are_wrong(fails: Call) -> None:
    assert "argument --seed: invalid int value: 'abc'; " in fails(flags=("--seed", "abc"))
    assert "--model-dir: is read with --eval-only alone" in fails(flags=("--model-dir", "."))
    assert "--load-epoch: is read with --eval-only alone" in fails(flags=("--load-epoch", "0"))
    assert "--resume: is not read with --eval-only" in fails(flags=("--eval-only", "--resume", "."))


def test_what_differs_most_is_named_first(fails: Call, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    other = {"DATASET": {"NAME": "Shapes"}, "OPTIM": {"LR": 5.0}, "TRAINER": {"NAME": "UPL"}}
    (folder / "config.yaml").write_text(json.dumps(other))
    (folder / "summary.json").touch()
    assert "holds another experiment (TRAINER.NAME is 'UPL' there, 'CoFT' here)" in fails(left=True)


def test_a_folder_without_results_is_free_for_the_corrected_command(
    root: Path, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    out = tmp_path / "out.txt"  # a folder all the same
    out.mkdir()
    other = {"DATASET": {"NAME": "Shapes"}, "MODEL": {"BACKBONE": {"NAME": "x"}}, "TRAINER": {"NAME": "UPL"}}
    (out / "config.yaml").write_text(json.dumps(other))
    (out / "log.txt").write_text("what was wrong")
    (out / "metrics.csv").write_text("epoch,stage\n0,zero-shot\n")
    argv = ["--trainer", "ZeroshotCLIP", "--root", str(root), "--output-dir", str(out), "--seed", "1"]
    assert train.main([*argv, "--backbone", str(checkpoints["resnet"]), "DATASET.NAME", "Shapes"]) == 0
    assert "ZeroshotCLIP" in (out / "config.yaml").read_text() and "what was wrong" not in (out / "log.txt").read_text()


def test_a_folder_that_another_process_is_at(fails: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coft.core.lock.PATIENCE", 0.3)
    (tmp_path / "out").mkdir()
    wait = time.sleep
    with sole(tmp_path / "out"), monkeypatch.context() as patch:
        begins = (tmp_path / "out" / "log.txt").touch  # both were started at once
        patch.setattr("coft.core.lock.time.sleep", lambda seconds: begins() or wait(seconds))
        assert "is in use by another process" in fails(left=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["log.txt"]
    shutil.rmtree(tmp_path / "out")
    assert "unknown name" in fails(trainer="COFT")


def test_folders_that_a_mistake_leaves_empty_go(
    root: Path, tmp_path: Path, checkpoints: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kept").mkdir()
    (root / "images" / "train_1_0.png").unlink()
    argv = ["--trainer", "CoFT", "--root", str(root), "--output-dir", str(tmp_path / "kept" / "a" / "b" / "c")]
    assert train.main([*argv, "--backbone", str(checkpoints["resnet"]), "DATASET.NAME", "Shapes", *QUICK]) == 2
    assert "is missing" in capfd.readouterr().err
    assert (tmp_path / "kept").is_dir() and not any((tmp_path / "kept").iterdir())


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_unreadable_or_missing_image_is_named(fails: Call, root: Path, part: str) -> None:
    image = root / "images" / f"{part}_1_0.png"
    image.write_bytes(image.read_bytes()[:100])
    assert f"image {image} cannot be read" in fails()
    image.unlink()
    assert f"image {image} is missing" in fails()


def test_an_unreadable_test_image_is_named_with_loader_workers(fails: Call, root: Path) -> None:
    (root / "images" / "test_1_0.png").write_bytes(b"")
    assert "test_1_0.png cannot be read" in fails("DATALOADER.NUM_WORKERS", "1")


def test_grey_palette_and_transparent_images_are_converted(
    root: Path, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    for i, mode in enumerate(["L", "P", "RGBA", "LA"]):
        path = root / "images" / f"train_0_{i}.png"
        Image.open(path).convert("L" if mode == "LA" else "RGB").convert(mode).save(path)
    argv = ["--trainer", "CoFT", "--root", str(root), "--output-dir", str(tmp_path / "out"), "--seed", "1"]
    assert train.main([*argv, "--backbone", str(checkpoints["resnet"]), "DATASET.NAME", "Shapes", *QUICK]) == 0


def test_a_quiet_run_says_nothing_but_warnings_and_its_log_has_all(
    root: Path, tmp_path: Path, checkpoints: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    argv = ["--trainer", "CoFT", "--root", str(root), "--seed", "1", "--backbone", str(checkpoints["resnet"])]
    argv += ["DATASET.NAME", "Shapes", *QUICK]
    shown, logs = {}, {}
    for name, flags in (("loud", []), ("quiet", ["--quiet"])):
        assert train.main([*flags, "--output-dir", str(tmp_path / name), *argv]) == 0
        captured = capfd.readouterr()
        shown[name], logs[name] = captured.out + captured.err, (tmp_path / name / "log.txt").read_text()
    assert "[phase1] epoch 1" in shown["loud"] and "** Config **" not in shown["loud"]
    warned = [line for line in logs["quiet"].splitlines() if line.startswith("Warning: ")]
    assert shown["quiet"].splitlines() == warned
    assert all("** Config **" in log and "[phase1] epoch 1" in log for log in logs.values())


def test_class_names_that_make_no_classifier(fails: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for names, message in (
        (("cat",), "at least two class names"),
        (("cat", "dog", "cat"), "the same name 'cat'"),
        (("cat", "dog", "word " * 90), "the text encoder reads 77; shorten it"),
    ):
        monkeypatch.setattr("tests.conftest.CLASSNAMES", names)
        assert message in fails()


def test_an_output_folder_that_holds_another_experiment(fails: Call, tmp_path: Path, root: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "log.txt").write_text("somebody else's")
    assert "holds another experiment" in fails(left=True)
    assert (out / "log.txt").read_text() == "somebody else's" and len(list(out.iterdir())) == 1


def test_another_setting_in_the_same_folder_is_refused_and_the_same_one_goes_on(
    fails: Call, tmp_path: Path, root: Path, checkpoints: dict[str, Path]
) -> None:
    out = tmp_path / "out"
    argv = ["--trainer", "CoFT", "--root", str(root), "--output-dir", str(out), "--seed", "1"]
    argv += ["--backbone", str(checkpoints["resnet"]), "DATASET.NAME", "Shapes", *QUICK]
    assert train.main(argv) == 0
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    assert "TRAINER.COFT.FILTER is 'both' there, 'self' here" in fails("TRAINER.COFT.FILTER", "self", left=True)
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    summary = json.loads((out / "summary.json").read_text())
    assert train.main([*argv, "DATALOADER.NUM_WORKERS", "1"]) == 0
    assert (
        json.loads((out / "summary.json").read_text())["results"]["accuracy_test"]
        == summary["results"]["accuracy_test"]
    )


def test_a_loss_that_is_not_a_number(fails: Call) -> None:
    options = ("OPTIM.LR", "1e30", "TRAINER.COFT.PHASE1.MIN_STEPS", "9", "TRAIN.GUARD", "False")
    assert "lower the learning rate" in fails(*options)


def test_a_checkpoint_of_another_backbone(
    tmp_path: Path, root: Path, checkpoints: dict[str, Path], fails: Call
) -> None:
    common = ["--trainer", "CoFT", "--root", str(root), "--seed", "1"]
    made = [
        "--output-dir",
        str(tmp_path / "made"),
        "--backbone",
        str(checkpoints["resnet"]),
        "DATASET.NAME",
        "Shapes",
        *QUICK,
    ]
    assert train.main(common + made) == 0
    flags = ("--eval-only", "--model-dir", str(tmp_path / "made"))
    assert "made with another backbone" in fails(backbone=str(checkpoints["other"]), flags=flags)
    flags = ("--resume", str(tmp_path / "made"))
    assert "made with another backbone" in fails(backbone=str(checkpoints["other"]), flags=flags)
    assert "no model at" in fails(flags=("--eval-only", "--model-dir", str(tmp_path / "nowhere"))).lower()
    assert (
        "no model at"
        in fails(flags=("--eval-only", "--model-dir", str(tmp_path / "made"), "--load-epoch", "9")).lower()
    )


def test_a_backbone_with_weights_that_are_code(fails: Call, tmp_path: Path) -> None:
    torch.jit.trace(torch.nn.Linear(1, 1), torch.ones(1)).save(str(tmp_path / "code.pt"))
    assert "a TorchScript archive is a program" in fails(backbone=str(tmp_path / "code.pt"))
