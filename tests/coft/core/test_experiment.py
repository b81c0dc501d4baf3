from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from yacs.config import CfgNode

from coft.core import experiment, paths
from coft.core.errors import UserError
from coft.core.experiment import (
    OtherRunError,
    check_identity,
    claim,
    saved_config,
    write_json,
)
from coft.core.lock import exclusive_lock


def settings(folder: Path, **changes: object) -> CfgNode:
    tree = {"OUTPUT_DIR": str(folder), "SEED": 1, "OPTIM": {"LR": 0.1, "STEPS": (1, 2)}, "VERBOSE": True}
    return CfgNode(tree | changes)


def test_the_same_experiment_may_be_resumed(tmp_path: Path) -> None:
    claim(settings(tmp_path / "out"))
    claim(settings(tmp_path / "out", VERBOSE=False))
    assert saved_config(tmp_path / "out")["OPTIM.STEPS"] == [1, 2]


def test_another_experiment_is_refused_by_its_first_difference(tmp_path: Path) -> None:
    claim(settings(tmp_path / "out"))
    with pytest.raises(UserError, match=r"OPTIM\.LR is 0\.1 there, 0\.2 here"):
        claim(settings(tmp_path / "out", OPTIM={"LR": 0.2, "STEPS": (1, 2)}))
    with pytest.raises(UserError, match=r"begun by another version of the project \(NEW is known"):
        claim(settings(tmp_path / "out", NEW=3))


@pytest.mark.parametrize("name", ["skipped.csv", "pseudo_labels.csv", "log.txt", "report/peers.safetensors"])
def test_a_run_that_was_stopped_in_its_first_epoch_gives_its_folder_to_another_one(tmp_path: Path, name: str) -> None:
    identity = {"TRAINER": {"NAME": "CoFT"}, "DATASET": {"NAME": "Folder"}, "MODEL": {"BACKBONE": {"NAME": "photo"}}}
    claim(settings(tmp_path, **identity))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("path,problem\n")
    claim(settings(tmp_path, **identity, NEW=3))
    assert saved_config(tmp_path)["NEW"] == 3 and [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("name", ["classes.txt", "duplicates.csv", "test_predictions.csv", "least_sure.csv"])
def test_files_that_a_run_would_replace_keep_their_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=f"has {name} and no config.yaml"):
        claim(settings(tmp_path))


def test_a_linked_folder_of_an_early_stop_is_unlinked_alone(tmp_path: Path) -> None:
    identity = {"TRAINER": {"NAME": "CoFT"}, "DATASET": {"NAME": "Folder"}, "MODEL": {"BACKBONE": {"NAME": "photo"}}}
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.txt").touch()
    claim(settings(out, **identity))
    (out / "tensorboard").symlink_to(elsewhere)
    claim(settings(out, **identity, NEW=3))
    assert (elsewhere / "mine.txt").exists() and not (out / "tensorboard").is_symlink()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("coft.core.files.tempfile.mkstemp", fail)
        patch.setattr("pathlib.Path.open", fail)
        patch.setattr("pathlib.Path.write_text", fail)
        with pytest.raises(UserError, match=rf"{tmp_path}: cannot be written to \(Permission denied\)"):
            claim(settings(tmp_path))
    monkeypatch.setattr("coft.core.lock.os.open", fail)
    with pytest.raises(UserError, match="Permission denied"), exclusive_lock(tmp_path):
        pass


def test_a_folder_with_checkpoints_but_no_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "checkpoint").write_text("model.pth.tar-1")
    with pytest.raises(UserError, match="has a log or checkpoints and no config"):
        claim(settings(tmp_path))


@pytest.mark.parametrize("name", ["IMG_1.JPG", "cats/a.webp"])
def test_a_folder_of_images_is_no_output_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=rf"has images, such as {name}, and no config.yaml; choose another"):
        claim(settings(tmp_path))
    assert not (tmp_path / "config.yaml").exists()


def test_nan_and_infinity_are_written_as_null(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": [float("nan"), 1.5], "b": float("inf")})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, 1.5], "b": None}


def test_a_checkpoint_of_another_run_is_refused_by_its_first_difference() -> None:
    saved = {"backbone": "abc", "class list": "cat | dog", "more": "1"}
    check_identity(saved, {"backbone": "abc", "class list": "cat | dog"})  # other keys are ignored
    with pytest.raises(OtherRunError, match=r"made with another backbone \(abc, here xyz\); use the backbone it was"):
        check_identity(saved, {"backbone": "xyz", "class list": "cat"})
    with pytest.raises(UserError, match="another class list"):
        check_identity(saved, {"backbone": "abc", "class list": "cat"})
    with pytest.raises(OtherRunError, match="another images;"):  # a hash means nothing to a user
        check_identity({"images": "0" * 16}, {"images": "1" * 16})
    with pytest.raises(OtherRunError, match=r"another images \(None, here 123\)"):
        check_identity(saved, {"images": "123"})


def test_the_cache_of_a_read_only_checkout_is_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "HOME", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert paths.cache_folder() == tmp_path / "cache"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert paths.cache_folder() == tmp_path / "user" / "coft"


def test_the_commit_is_that_of_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "outer" / "site-packages"
    (root / "coft" / "core").mkdir(parents=True)
    monkeypatch.setattr(experiment, "__file__", str(root / "coft" / "core" / "experiment.py"))

    def git(*words: str, folder: Path = root.parent) -> str:
        identity = ["-c", "user.name=name", "-c", "user.email=name@example.org"]
        return subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True).stdout

    git("init")
    git("commit", "--allow-empty", "-m", "of another project")
    assert experiment.commit() == ""
    git("init", folder=root)
    (root / "file").write_text("as committed")
    git("add", ".", folder=root)
    git("commit", "-m", "first", folder=root)
    assert experiment.commit() == git("rev-parse", "--short", "HEAD", folder=root).strip()
    (root / "file").write_text("changed")
    assert experiment.commit().endswith("-dirty")
