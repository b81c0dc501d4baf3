"""Untrusted models, lists and journals: bad content is refused in one line."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from coft.core.errors import UserError
from coft.inference.predict import main as predict
from coft.inference.sorting import FORMAT, Sorter
from coft.inference.sources import Sources, names_in
from coft.inference.store import load
from coft.inference.undo_journal import undo

Tensors = dict[str, Tensor]


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def describe(run: Path, **parts: Any) -> None:
    """Change a model's description; "a__b" is key b within a."""
    path = run / "model" / "model.json"
    content = {key: part for key, part in json.loads(path.read_text()).items() if key != "sha256"}
    for name, part in parts.items():
        *above, last = name.split("__")
        node = content
        for key in above:
            node = node[int(key)] if key.isdecimal() else node[key]
        node[last] = part
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "part",
    [
        {"classes": ["a", "b", "a"]},
        {"inputs__size": 64},  # which the backbone does not read
        {"inputs__std": [0, 0, 0]},
        {"classifiers__0__encoder": 99},
        {"encoders": ["x"]},
        {"score": "x"},
        {"members": [9, 9]},
        {"precision": 5},
    ],
    ids=str,
)
def test_a_bad_value_in_a_description_is_refused(run: Path, part: dict[str, Any]) -> None:
    describe(run, **part)
    with pytest.raises(UserError, match=r"model\.json: is damaged \(.*\); copy it again"):
        load(run)


def change_classifiers(change: Callable[[Tensor], Tensor]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: change(x) if name.startswith("classifiers") else x for name, x in tensors.items()}


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {name: x.int() for name, x in tensors.items()},
        lambda tensors: {name: x[None] for name, x in tensors.items()},
        lambda tensors: {**tensors, "x": torch.zeros(1)},
        lambda tensors: {**tensors, "encoders.77.x": torch.zeros(1)},
        lambda tensors: {},
        change_classifiers(lambda x: x[:, :5].contiguous()),
        change_classifiers(lambda x: x[:1].contiguous()),
    ],
)
def test_tensors_of_other_types_shapes_or_names_are_refused(run: Path, change: Callable[[Tensors], Tensors]) -> None:
    path = run / "model" / "model.safetensors"
    save_file(change(load_file(path)), path)
    describe(run, weights__sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(UserError, match="is damaged"):
        load(run)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_of_other_float_types_are_read(run: Path, kind: torch.dtype, pictures: Path) -> None:
    path = run / "model" / "model.safetensors"
    save_file({name: x.to(kind) for name, x in load_file(path).items()}, path)
    describe(run, weights__sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    model = load(run)
    assert len(model.predict(model.batch([model.view(pictures / "00.png")])).probabilities) == 1


# -------------------------------------------------------------------- images and tables


def test_a_list_may_be_separated_by_null_bytes() -> None:
    assert list(names_in(["a b\0c\n", "\n", "d\0", "e"])) == ["a b", "c\n\nd", "e"]
    assert list(names_in(["a\r\n", "\n", "b c"])) == ["a", "b c"]


def test_a_byte_order_mark_is_removed() -> None:
    assert list(names_in(["\ufeffa.png\n", "b.png\n"])) == ["a.png", "b.png"]


@pytest.mark.parametrize("flag", ["--move", "--link", "--output", "--undo"])
def test_an_empty_path_is_refused(
    flag: str, finished_run: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(pictures)
    before = sorted(pictures.iterdir())
    assert predict([str(finished_run), "00.png", flag, ""]) == 2
    assert f"{flag}: expected a path" in capsys.readouterr().err and sorted(pictures.iterdir()) == before


def test_without_a_readable_image_there_is_an_error_and_no_file(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(b"none")
    assert predict([str(finished_run), str(tmp_path), "--output", str(tmp_path / "rows.csv")]) == 2
    assert "1 file, and none is an image" in capsys.readouterr().err and not (tmp_path / "rows.csv").exists()


def test_a_folder_that_cannot_be_listed_is_named(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (pictures / "circle").symlink_to("circle")
    (pictures / "circle.png").symlink_to("circle.png")
    scandir = os.scandir

    def closed(path: Any) -> Any:
        if str(path).endswith("more"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    names = [Path(source.shown).name for source in Sources([str(pictures)])]
    assert {"00.png", "07.png", "circle.png", "more"} <= set(names) and "08.png" not in names


# -------------------------------------------------------------------- journals

HEAD = json.dumps({"format": FORMAT, "link": False}) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing\n",
        json.dumps({"format": FORMAT, "link": "no"}) + "\n",
        HEAD + json.dumps({"from": "/a\0b", "to": "cat/a"}) + "\n",
        HEAD + json.dumps({"from": "a", "to": "cat/a"}) + "\n",
        HEAD + json.dumps({"from": "/a", "to": "../a"}) + "\n",
        HEAD + json.dumps({"made": ".."}) + "\n",
        HEAD + json.dumps({"from": "/a", "to": "cat/a", "size": -1}) + "\n",
    ],
)
def test_a_bad_journal_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "journal").write_text(text)
    with pytest.raises(UserError, match=r"--undo .*is no journal"):
        undo(tmp_path / "journal")


def test_undo_leaves_edited_files(pictures: Path, tmp_path: Path) -> None:
    sorter = Sorter(tmp_path / "sorted", ["cat"], False)
    moved = [sorter.put(pictures / name, "cat") for name in ("00.png", "01.png", "02.png")]
    sorter.close()
    moved[0].write_bytes(b"edited")
    moved[1].unlink()
    moved[1].mkdir()
    assert undo(sorter.journal) == (1, 2) and sorter.journal.exists()
    assert moved[0].read_bytes() == b"edited" and moved[1].is_dir() and (pictures / "02.png").is_file()


def test_a_moved_relative_link_keeps_its_target_and_is_restored(pictures: Path, tmp_path: Path) -> None:
    link, target = pictures / "link.png", (pictures / "00.png").resolve()
    link.symlink_to("more/../00.png")
    sorter = Sorter(tmp_path / "sorted", ["cat"], False)
    moved = sorter.put(link, "cat")
    sorter.close()
    assert moved.is_symlink() and moved.resolve() == target and not link.is_symlink()
    assert undo(sorter.journal) == (1, 0)
    assert str(link.readlink()) == "more/../00.png" and link.resolve() == target


def test_undo_does_not_follow_linked_folders_and_survives_loops(
    pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sorter = Sorter(tmp_path / "sorted", ["cat"], False)
    sorter.put(pictures / "00.png", "cat")
    sorter.close()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    (tmp_path / "sorted" / "dog").symlink_to(tmp_path / "other")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "sorted" / "cat" / "l").symlink_to("x")
    entries = [
        {"from": str(tmp_path / "stolen.txt"), "to": "dog/mine.txt"},
        {"from": str(tmp_path / "loop" / "p"), "to": "cat/l", "points": "x"},
        {"from": str(tmp_path / "gone"), "to": "cat/gone\x1b[31m", "size": 1, "time": 1},
    ]
    with sorter.journal.open("a") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in entries)
    assert undo(sorter.journal) == (1, 3) and (pictures / "00.png").is_file()
    assert (tmp_path / "other" / "mine.txt").is_file() and "\x1b" not in caplog.text
