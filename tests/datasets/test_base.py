from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coft.core.errors import UserError, did_you_mean
from coft.engine.class_names import check_classnames
from datasets.base import DeclaredDataset, read_split, subsample
from datasets.digits import Digits
from datasets.eurosat import EuroSAT


def config(root: Path, **dataset: Any) -> Any:
    return SimpleNamespace(
        DATASET=SimpleNamespace(**{"ROOT": str(root), "NUM_SHOTS": -1, "SUBSAMPLE_CLASSES": "all"} | dataset)
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def test_digits_are_all_there(root: Path) -> None:
    data = Digits(config(root))
    assert (len(data.train_u), len(data.train_x), len(data.test)) == (1257, 1257, 540)
    assert data.classnames[3] == "three" and data.num_classes == 10
    paths = [item.impath for item in data.train_u + data.test]
    assert len(set(paths)) == 1797
    assert not any(item.classname in Path(item.impath).name for item in data.test)


def test_digits_are_written_once(root: Path) -> None:
    Digits(config(root))
    before = (root / "digits" / "split_digits.json").stat().st_mtime_ns
    Digits(config(root))
    assert (root / "digits" / "split_digits.json").stat().st_mtime_ns == before
    assert [p.name for p in root.iterdir()] == ["digits"]


def test_digits_never_overwrite_a_folder_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="set DATA to a folder"):
        Digits(config(tmp_path))
    assert [p.name for p in tmp_path.rglob("*")] == ["digits", "precious.txt"]


@pytest.mark.parametrize("shots", [1, 16])
def test_few_shots_leave_the_unlabeled_set_whole(root: Path, shots: int) -> None:
    data = Digits(config(root, NUM_SHOTS=shots))
    assert len(data.train_x) == 10 * shots and len(data.train_u) == 1257


def test_base_and_new_classes(root: Path) -> None:
    base, new = (Digits(config(root, SUBSAMPLE_CLASSES=which)) for which in ("base", "new"))
    assert base.classnames == ["zero", "one", "two", "three", "four"] and new.classnames[0] == "five"
    assert {item.label for item in new.train_x} == set(range(5))
    assert len(base.test) + len(new.test) == 540


@given(st.integers(2, 30))
def test_halves_are_coops(n: int) -> None:
    base, new = subsample(range(n), "base"), subsample(range(n), "new")
    assert base + new == list(range(n)) and len(base) - len(new) in (0, 1)


def test_unknown_half_is_named() -> None:
    with pytest.raises(UserError, match="SUBSAMPLE_CLASSES is 'old'; expected one of all, base, new"):
        subsample(range(4), "old")


@pytest.mark.parametrize("which", ["base", "new"])
def test_half_of_two_classes_is_too_few(which: str) -> None:
    names: list[str] = ["cat", "dog"]
    with pytest.raises(UserError, match=f"SUBSAMPLE_CLASSES {which}: a classifier needs at least two class names"):
        DeclaredDataset(config(Path(), SUBSAMPLE_CLASSES=which), classnames=names, train=[], test=[])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat"], "at least two class names, 1 given"),
        (["cat", " "], "class 1 has an empty name"),
        (["cat", "dog | hound"], "the name of class 1 is 'dog | hound'; '|' stands between synonyms"),
        (["tabby cat", "dog", "Tabby_Cat"], "classes 0 and 2 have the same name 'Tabby_Cat'"),
    ],
)
def test_class_names_that_cannot_be_told_apart(names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        check_classnames(names, "data set Mine")


def make_eurosat(root: Path, shapes: Path) -> None:
    """Two images a class under EuroSAT's layout."""
    folder = root / "eurosat" / "2750" / "River"
    folder.mkdir(parents=True)
    image = next((shapes / "images").iterdir())
    rows = []
    for label in range(10):
        shutil.copy(image, folder / f"River_{label}.jpg")
        rows.append([f"River/River_{label}.jpg", label, "Name"])
    split = {"train": rows, "val": rows, "test": rows}
    (root / "eurosat" / "split_zhou_EuroSAT.json").write_text(json.dumps(split))


def test_eurosat_in_coops_layout(tmp_path: Path, shapes: Path) -> None:
    make_eurosat(tmp_path, shapes)
    data = EuroSAT(config(tmp_path))
    assert len(data.train_u) == len(data.test) == 10
    assert data.classnames[3] == "Highway or Road"


@pytest.mark.parametrize("missing", ["", "2750", "2750/River/River_4.jpg"])
def test_what_is_missing_of_eurosat_is_named(tmp_path: Path, shapes: Path, missing: str) -> None:
    make_eurosat(tmp_path, shapes)
    gone = tmp_path / "eurosat" / missing
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with pytest.raises(UserError, match=re.escape(str(gone))):
        EuroSAT(config(tmp_path))


@pytest.mark.parametrize("text", ["no json", "[]", '{"train": []}', '{"train": [["a"]], "val": [], "test": []}'])
def test_a_wrong_split_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(UserError, match=r"split\.json: expected JSON with train, val and test"):
        read_split(tmp_path / "split.json", tmp_path)


def test_class_names_come_from_the_declaration_not_from_labels(configure: Callable[..., Any]) -> None:
    from dassl.data.datasets import build_dataset

    data = build_dataset(configure("CoFT"))
    assert data.classnames == ["red circle", "green square", "blue stripes"]


def test_nearest_name() -> None:
    assert did_you_mean("eurosatt", ["digits", "eurosat"]) == "did you mean 'eurosat'?"
    assert did_you_mean("COFT", ["CoFT", "UPL"]) == "did you mean 'CoFT'?"
    assert did_you_mean("xyz", ["digits", "eurosat"]) == "known are: digits, eurosat"
    many = did_you_mean("WIZZ", [f"TRAINER.A{number:02d}.LR" for number in range(98)] + ["TRAINER.WISER", "SEED"])
    assert many.startswith("the nearest of 100 known ones: ") and "TRAINER.WISER" in many and many.count(",") == 4


def test_a_workers_traceback_is_cut_to_the_message() -> None:
    error = UserError(
        "Caught UserError in DataLoader worker process 0.\nTraceback ...\ncoft.core.errors.UserError: image x"
    )
    assert error.line == "image x"
