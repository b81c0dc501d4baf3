"""coft.adapt: same results as the command, all forms of images, resumed runs, and errors."""

from __future__ import annotations

import csv
import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

import coft
from coft.cli.main import main
from coft.engine import state
from coft.engine.class_names import class_list, given_classes, read_classes
from coft.engine.engine import Engine
from coft.images.image_sources import collect_images
from coft.inference.encoders import module_of
from coft.inference.export.sample import images_of_run
from coft.method import guard
from coft.method.coft import CoFT
from coft.report.run_folder import read_run
from coft.review.reviewed import read_reviewed
from scripts import launch
from scripts.settings import page
from tests.coft.api.conftest import SHORT
from tests.coft.backbones.test_load import archive
from tests.conftest import CLASSNAMES


@pytest.fixture
def adapt(checkpoints: dict[str, Path]) -> Callable[..., coft.Adapted]:
    def call(images: Any, classes: Any = CLASSNAMES, **settings: Any) -> coft.Adapted:
        return coft.adapt(images, classes, str(checkpoints["resnet"]), progress=False, **(SHORT | settings))

    return call


def config_name(name: str, section: str) -> str:
    key = name.replace("__", ".").upper()
    return key if key.startswith(("DATALOADER.", "INPUT.", "OPTIM.")) else f"TRAINER.{section}.{key}"


@pytest.mark.parametrize(("method", "trainer"), [("coft", "CoFT"), ("coft+", "CoFTPlus")])
def test_results_equal_those_of_the_command_to_the_bit(
    method: str, trainer: str, adapt: Any, folder: Path, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    settings = SHORT | {"input__augment": "aerial", "optim__lr": 0.02} | ({"rounds": 2} if method == "coft+" else {})
    classes = tmp_path / "classes.txt"
    first, *others = (f"{name}\tA {name} on a wall." for name in CLASSNAMES)
    classes.write_text("\n".join([first.replace("\t", " | red disc | dot\t"), *others]), encoding="utf-8")
    out = tmp_path / "command"
    argv = [trainer, "folder", "--images", str(folder), "--classes", str(classes), "--output-dir", str(out)]
    argv += ["--backbone", str(checkpoints["resnet"]), "--seed", "3"]
    pairs = {config_name(name, trainer.upper()): value for name, value in settings.items()}
    assert launch.main([*argv, *(str(word) for pair in pairs.items() for word in pair)]) == 0
    torch.manual_seed(123)  # the global generator is not used
    before = torch.get_rng_state()
    settings = {name: np.asarray(value)[()] for name, value in settings.items()}  # NumPy's numbers and texts
    result = adapt(folder, classes, output=tmp_path / "python", method=method, seed=np.int64(3), **settings)
    assert torch.equal(torch.get_rng_state(), before)
    tables = "pseudo_labels.csv", "predictions.csv", "skipped.csv", "duplicates.csv"
    for name in (*tables, "classes.txt", "model/model.safetensors"):
        assert (tmp_path / "python" / name).read_bytes() == (out / name).read_bytes(), name
    stages = [
        [row["stage"] for row in csv.DictReader((tmp_path / n / "metrics.csv").open())] for n in ("python", "command")
    ]
    assert stages[0] == stages[1] and stages[0][0] == "zero-shot"
    rows = list(csv.DictReader((out / "predictions.csv").open()))
    assert {row["class"] for row in rows} <= set(CLASSNAMES) and list(result.classes_) == list(CLASSNAMES)
    assert read_classes(str(out / "classes.txt")) == read_classes(str(classes))
    shown = [{"path": p, "class": c, "confidence": f"{x:.6f}"} for p, c, x in result.labels_.to_numpy()[:, :3]]
    assert shown == rows and len(rows) == 25


def test_a_finished_run_with_a_trusted_archive_is_loaded_by_the_same_call(folder: Path, tmp_path: Path) -> None:
    trusted = SHORT | {"model__backbone__trust_jit": True, "phase1__epochs": 1, "phase2__epochs": 1}
    args = folder, CLASSNAMES, str(archive(tmp_path / "clip.pt")), tmp_path / "out"
    first, again = (coft.adapt(*args, progress=False, **trusted) for _ in range(2))
    assert list(again.labels_["class"]) == list(first.labels_["class"])
    for number, adapted in enumerate((first, again)):
        adapted.model.precision = "bf16"  # as on a GPU: exports are of the model on the CPU, in fp32
        adapted.export(tmp_path / str(number), "head")


class Labelled(Dataset):
    """A data set in torchvision's style, whose labels must not be read."""

    def __init__(self, pictures: list[Image.Image]) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, object]:
        return torch.from_numpy(np.array(self.pictures[number])).permute(2, 0, 1).float() / 255, object()


def test_all_forms_of_images_in_memory_are_equivalent(adapt: Any, pictures: list[Image.Image]) -> None:
    array = np.stack([np.asarray(picture) for picture in pictures])
    first = collect_images(pictures)
    assert first.names == [str(number) for number in range(24)] and len(set(first.digests)) == 24
    for images in (array, list(array), torch.from_numpy(array).permute(0, 3, 1, 2), Labelled(pictures)):
        collected = collect_images(images)
        assert collected.digests == first.digests and not collected.are_files
        assert collected.read("5") == first.read("5")
    result = adapt(Labelled([*pictures, pictures[0]]))
    assert list(result.labels_["number"]) == list(range(25)) and len(collect_images(pictures * 2).distinct()) == 24
    assert list(result.labels_.loc[24])[1:] == list(result.labels_.loc[0])[1:]
    assert np.array_equal(result.predict_proba(array), result.predict_proba(pictures))


def test_labels_are_the_predictions_of_the_model_also_after_loading(adapt: Any, folder: Path, tmp_path: Path) -> None:
    result = adapt([str(path) for path in sorted(folder.rglob("*.png")) if path.name != "broken.png"])
    probabilities = result.predict_proba(list(result.labels_["path"]))
    assert list(result.predict(list(result.labels_["path"]))) == list(result.labels_["class"])
    assert probabilities.max(axis=1) == pytest.approx(result.labels_["confidence"].to_numpy(), rel=1e-5)
    assert probabilities.shape == (25, 3) and probabilities.sum(axis=1) == pytest.approx(np.ones(25))
    assert result.labels_["p_clean"].between(0, 1).all() and result.labels_["kept"].dtype == bool
    result.save(tmp_path / "saved")
    loaded = coft.Adapted.load(tmp_path / "saved")
    pd.testing.assert_frame_equal(loaded.labels_, result.labels_, check_dtype=False, rtol=1e-6)
    assert list(loaded.classes_) == list(CLASSNAMES)
    assert np.array_equal(loaded.predict_proba(folder / "0.png"), result.predict_proba(folder / "0.png"))


def test_commands_work_on_the_output_folder(
    adapt: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    result = adapt(folder, output=output)
    page = (output / "report.html").read_bytes()
    assert all(name.encode() in page for name in CLASSNAMES)
    (output / "report.html").unlink()
    assert main(["report", str(output)]) == 0 and (output / "report.html").is_file()
    capsys.readouterr()
    image = folder / "0.png"
    assert main(["predict", str(output), str(image)]) == 0
    row = next(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert row["path"] == str(image) and row["class"] == result.predict(image)[0]
    assert main(["export", str(output), "--to", "head", str(tmp_path / "head")]) == 0
    assert (tmp_path / "head" / "head.safetensors").is_file()


def test_a_stopped_run_resumes_to_the_same_bits(
    adapt: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = adapt(folder, output=tmp_path / "whole")
    step, steps = Engine.step, list[int]()

    def stop(self: Engine, batch: Any) -> dict[str, float]:
        steps.append(self.method.epoch)
        if self.method.epoch == 3:
            raise KeyboardInterrupt
        return step(self, batch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Engine, "step", stop)
        adapt(folder, output=tmp_path / "out")
    assert set(steps) == {0, 1, 2, 3} and (tmp_path / "out" / state.FILE).is_file()
    with monkeypatch.context() as patch:
        patch.setattr(CoFT, "begin", None)
        pd.testing.assert_frame_equal(adapt(folder, output=tmp_path / "out").labels_, whole.labels_)
        assert not (tmp_path / "out" / state.FILE).exists()
        patch.setattr(Engine, "begin_epoch", None)  # a finished run is loaded
        pd.testing.assert_frame_equal(
            adapt(folder, output=tmp_path / "out").labels_, whole.labels_, check_dtype=False, rtol=1e-6
        )
    weights = "model/model.safetensors"
    assert (tmp_path / "out" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()
    for other in ({"seed": 2}, {"phase2__epochs": 3}, {"classes": ["a", "b", "c"]}):
        with pytest.raises(coft.UserError, match=r"holds another experiment .* choose another output,"):
            adapt(folder, output=tmp_path / "out", **other)


def test_a_name_is_not_taken_for_a_name_with_a_synonym() -> None:
    lists = [
        class_list(given_classes([name, "sea"]), None) for name in ("a | b", "a = b", "a", "a | b | c", "a = b | c")
    ]
    assert len(set(lists)) == len(lists)


def test_images_may_be_renamed_between_stop_and_resume(
    adapt: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, output, step = adapt(folder), tmp_path / "out", Engine.step

    def stop(self: Engine, batch: Any) -> dict[str, float]:
        if self.method.epoch == 3:  # after the last labelling
            raise KeyboardInterrupt
        return step(self, batch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Engine, "step", stop)
        adapt(folder, output=output)
    before = pd.read_csv(output / "pseudo_labels.csv", dtype=str)
    for path in folder.rglob("[0-9]*.png"):
        path.rename(path.with_name(f"new, {path.name}"))
    for _ in range(2):  # resumed, then finished
        labels = adapt(folder, output=output).labels_
        assert sorted(labels["class"]) == sorted(whole.labels_["class"])
    after = pd.read_csv(output / "pseudo_labels.csv", dtype=str)
    assert after["path"].isin(labels["path"]).all()
    pd.testing.assert_frame_equal(after.drop(columns="path"), before.drop(columns="path"))
    assert len(read_run(output).images) == len(labels)


@pytest.fixture
def stopped(adapt: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state file of a run that was stopped before Phase II."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CoFT, "label_all", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        adapt(folder, output=tmp_path / "out")
    return tmp_path / "out" / state.FILE


def change_state(state: dict[str, Any], part_name: str) -> None:
    """Change one part of a state."""
    part, labels = state["parts"]["peer_a"], state["method"]["labels"]["peer_a"]
    optimizer = part["optimizer"].get("optimizer", part["optimizer"])
    if part_name == "momentum":
        first = next(iter(optimizer["state"].values()))
        first.update({name: value.new_zeros(5) for name, value in first.items() if value.dim()})
    elif part_name == "rate":
        optimizer["param_groups"][0]["lr"] = "fast"
    elif part_name == "label":
        labels["label"][0] = 99
    elif part_name == "index":
        labels["index"][0] = 999
    elif part_name == "weights":
        labels["weight"] = labels["weight"][:-1]


def test_a_bad_state_is_refused(adapt: Any, folder: Path, stopped: Path) -> None:
    data, state = stopped.read_bytes(), torch.load(stopped, weights_only=True)
    bad = [state | {"epochs": epochs} for epochs in (10**9, 10**30, -1, 0, 1.5, "1", True, None)]
    bad += [state | {"parts": {}}, state | {"parts": state["parts"] | {"x": {}}}]
    for part_name in ("momentum", "rate", "label", "index", "weights"):
        bad.append(torch.load(stopped, weights_only=True))
        change_state(bad[-1], part_name)
    for content in (None, *bad):
        stopped.write_bytes(data[:1000]) if content is None else torch.save(content, stopped)
        with pytest.raises(coft.UserError, match=f"{re.escape(str(stopped))}: .*remove the folder"):
            adapt(folder, output=stopped.parent)


def test_a_full_disk_is_reported(adapt: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(coft.UserError, match=r"out: cannot be written to \(No space left on device\); make room"):
        adapt(folder, output=tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.tmp*")) and not (tmp_path / "out" / state.FILE).exists()


@pytest.mark.parametrize(("more", "shown"), [("\nyellow star", "yellow star"), ("\tIt has stripes.", "descriptions ")])
def test_a_changed_class_file_is_another_experiment(
    more: str, shown: str, adapt: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = tmp_path / "classes.txt"
    classes.write_text("\n".join(CLASSNAMES))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CoFT, "label_all", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        adapt(folder, classes, output=tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    classes.write_text("\n".join(CLASSNAMES) + more)
    with pytest.raises(coft.UserError, match=rf"holds another experiment \(DATASET.NAMES is .*{shown}"):
        adapt(folder, classes, output=tmp_path / "out")
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_a_broken_image_is_skipped_in_training_and_refused_in_prediction(
    adapt: Any, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "coft")
    result = adapt(folder, phase2__epochs=1)
    epochs = re.findall(r"\[(phase\d)\] epoch (\d) of 3: seconds \d", caplog.text)
    assert epochs == [("phase1", "1"), ("phase1", "2"), ("phase2", "3")]
    assert str(folder / "broken.png") not in set(result.labels_["path"])
    assert "Skipped 1 file that cannot be read" in caplog.text and "broken.png" in caplog.text
    with pytest.raises(coft.UserError, match=r"broken\.png"):
        result.predict(folder)


def test_relative_paths_are_found_from_another_folder(
    adapt: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    names = sorted(path.name for path in folder.glob("*.png") if path.name != "broken.png")
    result = adapt(names, output=tmp_path / "out")
    assert list(result.labels_["path"]) == [str(folder / name) for name in names]
    monkeypatch.chdir(tmp_path)
    assert read_run(tmp_path / "out").missing_notice() == ""
    saved = tmp_path / "saved"
    result.save(saved)
    assert [source.path.name for source in images_of_run(saved)] == names
    assert images_of_run(saved / "model") == images_of_run(saved) and images_of_run(saved / "other") == []


def test_a_run_in_memory_has_no_pictures(
    adapt: Any, pictures: list[Image.Image], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "out"
    with caplog.at_level("INFO", "coft.said"):
        adapt(pictures, output=output)
    assert "coft predict" in caplog.text and "coft review" not in caplog.text
    notice = read_run(output).missing_notice()
    assert "in memory" in notice and "no longer" not in notice
    saved = tmp_path / "saved"
    coft.Adapted.load(output).save(saved)
    assert any("no images" in line for line in coft.Adapted.load(saved).export(tmp_path / "head", "head"))
    with pytest.raises(coft.UserError, match="images in memory"):
        read_reviewed(output)
    assert main(["report", str(output)]) == 0
    assert notice in (output / "report.html").read_text()


def test_of_fewer_images_than_a_run_needs_the_guard_may_still_keep_zero_shot_clip(
    adapt: Any, pictures: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(coft.UserError, match="too few images"):
        adapt(pictures[:2])
    monkeypatch.setattr(guard, "MIN_SKILL", 1.0)
    monkeypatch.setattr(guard, "MIN_INFORMATION", 1.0)
    for count in (1, 2):
        adapted = adapt(pictures[:count], output=tmp_path / str(count))
        assert len(adapted.labels_) == count and not adapted.labels_["kept"].any()
        assert np.isfinite(coft.Adapted.load(tmp_path / str(count)).predict_proba(pictures)).all()


def test_a_finished_run_returns_labels_in_the_order_of_the_call(
    adapt: Any, pictures: list[Image.Image], tmp_path: Path
) -> None:
    first = adapt(pictures, output=tmp_path / "out").labels_
    again = adapt([*pictures[::-1], pictures[3]], output=tmp_path / "out").labels_
    assert list(again["number"]) == list(range(25))
    order = [*range(23, -1, -1), 3]
    expected = first.loc[order].reset_index(drop=True).drop(columns="number")
    pd.testing.assert_frame_equal(again.drop(columns="number"), expected, check_dtype=False, rtol=1e-6)


def test_a_finished_run_on_a_folder_that_moved_has_its_paths_now(adapt: Any, folder: Path, tmp_path: Path) -> None:
    first = adapt(folder, output=tmp_path / "out").labels_
    folder.rename(tmp_path / "moved")
    again = adapt(tmp_path / "moved", output=tmp_path / "out").labels_
    assert list(again["path"]) == [path.replace(str(folder), str(tmp_path / "moved")) for path in first["path"]]
    assert list(again["class"]) == list(first["class"])


def test_a_path_that_is_listed_twice_is_trained_on_once(adapt: Any, folder: Path) -> None:
    paths = [folder / "again.png", folder / "0.png", folder / "2.png"]
    assert collect_images([*paths, *paths[::-1]]).distinct() == [str(paths[0]), str(paths[2])]


def test_a_finished_run_without_its_labels_is_refused(adapt: Any, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    adapt(folder, output=output)
    (output / "labels.csv").unlink()
    with pytest.raises(coft.UserError, match=r"finished run without its labels\.csv"):
        adapt(folder, output=output)


def test_python_names_are_on_the_page_of_settings() -> None:
    from coft.engine.config import METHODS, keys_by_python_name

    listed = page()
    for spec in METHODS.values():
        names = keys_by_python_name(spec)
        assert {"phase1__epochs", "input__size", "optim__lr", "use_cuda"} <= names.keys()
        assert all(f"| `{key.name}` |" in listed for key in names.values())


def test_visual_prompts_can_be_exported_to_onnx_but_not_to_open_clip(
    folder: Path, tmp_path: Path, checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    out, backbone = tmp_path / "out", str(checkpoints["vit"])
    result = coft.adapt(folder, CLASSNAMES, backbone, out, progress=False, **(SHORT | {"visual": "vpt-deep"}))
    model = result.model
    assert {module_of(encoder, model.clip_model.visual) for encoder in model.predictor.encoders} == {"vpt-deep"}
    capsys.readouterr()
    assert main(["export", str(out), "--to", "open_clip", str(tmp_path / "clip")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "visual prompts" in error and not (tmp_path / "clip").exists()
    assert main(["export", str(out), "--to", "onnx", str(tmp_path / "onnx")]) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"])
    images = [folder / "0.png", folder / "2.png"]
    batch = result.model.batch([result.model.view(image) for image in images])
    (probabilities,) = session.run(None, {"images": batch.numpy()})
    assert probabilities == pytest.approx(result.predict_proba(images), abs=1e-4)
