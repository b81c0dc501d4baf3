from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coft.core.errors import UserError, did_you_mean
from coft.engine.class_names import check_classnames
from datasets.base import DeclaredDataset, read_split, subsample
from datasets.digits import Digits
from tests.datasets.data_roots import config


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def test_digits_are_all_there_and_written_once(root: Path) -> None:
    data = Digits(config(root))
    before = (root / "digits" / "split_digits.json").stat().st_mtime_ns
    Digits(config(root))
    assert (root / "digits" / "split_digits.json").stat().st_mtime_ns == before
    assert (len(data.train_u), len(data.train_x), len(data.test)) == (1257, 1257, 540)
    assert data.classnames[3] == "three" and data.num_classes == 10
    paths = [item.impath for item in data.train_u + data.test]
    assert len(set(paths)) == 1797
    assert not any(item.classname in Path(item.impath).name for item in data.test)


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


@given(st.integers(2, 30))
def test_halves_are_coops(n: int) -> None:
    base, new = subsample(range(n), "base"), subsample(range(n), "new")
    assert base + new == list(range(n)) and len(base) - len(new) in (0, 1)


def test_half_of_two_classes_is_too_few() -> None:
    with pytest.raises(UserError, match="SUBSAMPLE_CLASSES"):
        DeclaredDataset(config(Path(), SUBSAMPLE_CLASSES="new"), classnames=["cat", "dog"], train=[], test=[])


@pytest.mark.parametrize("names", [["cat"], ["cat", " "], ["cat", "dog | hound"], ["tabby cat", "dog", "Tabby_Cat"]])
def test_class_names_that_cannot_be_told_apart(names: list[str]) -> None:
    with pytest.raises(UserError, match="data set Mine"):
        check_classnames(names, "data set Mine")


ROWS = (["a"], ["a", -2, "cat"], ["a", 1.0, "cat"], ["a", True, "cat"], ["a", 10**30, "cat"], ["a\0", 0, "cat"])
ROWS += (
    ["\ud800", 0, "cat"],
    ["../a", 0, "cat"],
    ["/a", 0, "cat"],
    ["a", 0, "c\x1bat"],
    ["a", 0, "\ud800"],
    ["", 0, "cat"],
)
SPLITS = [json.dumps({"train": [row], "val": [], "test": []}) for row in ROWS]
SPLITS.append(json.dumps({"train": [["a", 0, "cat"]], "val": [], "test": [["a", -1, "cat"]]}))  # nothing to test with


@pytest.mark.parametrize("text", ["no json", "[]", '{"train": []}', "[" * 100_000, *SPLITS])
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
    hint = did_you_mean("WIZZ", [f"TRAINER.A{number:02d}.LR" for number in range(98)] + ["TRAINER.WISER", "SEED"])
    assert hint.startswith("the nearest of 100 known ones: ") and "TRAINER.WISER" in hint and hint.count(",") == 4


def test_a_workers_traceback_is_cut_to_the_message() -> None:
    error = UserError(
        "Caught UserError in DataLoader worker process 0.\nTraceback ...\ncoft.core.errors.UserError: image x"
    )
    assert error.line == "image x"


def drawn(root: Path, **settings: Any) -> list[Any]:
    return list(Digits(config(root, **settings)).train_u)


def test_pools_are_disjoint_and_of_the_same_order_of_contents(root: Path) -> None:
    first, second, both = (drawn(root, NUM_UNLABELED=n, POOL=p) for n, p in ((300, 1), (300, 2), (600, 1)))
    assert len(first) == len(second) == 300
    assert {item.impath for item in first} | {item.impath for item in second} == {item.impath for item in both}
    with pytest.raises(
        UserError, match=r"DATASET\.POOL is 5: 1257 images are no 5 pools of DATASET.NUM_UNLABELED, which is 300"
    ):
        drawn(root, NUM_UNLABELED=300, POOL=5)


def test_an_unbalanced_pool_has_the_ratio_and_another_order_of_classes(root: Path) -> None:
    counts = []
    for pool in (1, 2):
        labels = [item.label for item in drawn(root, NUM_UNLABELED=250, RATIO=10.0, POOL=pool)]
        counts.append([labels.count(c) for c in range(10)])
        assert abs(sum(counts[-1]) - 250) <= 5 and max(counts[-1]) / min(counts[-1]) == pytest.approx(10, rel=0.1)
    assert counts[0] != counts[1] and sorted(counts[0]) == sorted(counts[1])
    assert Digits(config(root, RATIO=10.0)).unlabeled_part == "training images, drawn 10:1 by their labels"
    most = drawn(root, RATIO=10.0)
    assert 300 < len(most) < 1257
    with pytest.raises(UserError, match=r"too few images for DATASET.NUM_UNLABELED 1000; expected at most \d+"):
        drawn(root, NUM_UNLABELED=1000, RATIO=10.0)
