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


def test_digits_are_complete_and_written_once(root: Path) -> None:
    data = Digits(config(root))
    before = (root / "digits" / "split_digits.json").stat().st_mtime_ns
    Digits(config(root))
    assert (root / "digits" / "split_digits.json").stat().st_mtime_ns == before
    assert (len(data.train_u), len(data.train_x), len(data.test)) == (1257, 1257, 540)
    assert data.classnames[3] == "three" and data.num_classes == 10
    paths = [item.impath for item in data.train_u + data.test]
    assert len(set(paths)) == 1797
    assert not any(item.classname in Path(item.impath).name for item in data.test)


def test_digits_do_not_overwrite_another_folder(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="DATA"):
        Digits(config(tmp_path))
    assert [p.name for p in tmp_path.rglob("*")] == ["digits", "notes.txt"]


@pytest.mark.parametrize("shots", [1, 16])
def test_few_shots_do_not_shrink_unlabeled_set(root: Path, shots: int) -> None:
    data = Digits(config(root, NUM_SHOTS=shots))
    assert len(data.train_x) == 10 * shots and len(data.train_u) == 1257


@given(st.integers(2, 30))
def test_base_and_new_classes_are_halves(n: int) -> None:
    base, new = subsample(range(n), "base"), subsample(range(n), "new")
    assert base + new == list(range(n)) and len(base) - len(new) in (0, 1)


def test_half_of_two_classes_is_refused() -> None:
    with pytest.raises(UserError, match="SUBSAMPLE_CLASSES"):
        DeclaredDataset(config(Path(), SUBSAMPLE_CLASSES="new"), classnames=["cat", "dog"], train=[], test=[])


@pytest.mark.parametrize("names", [["cat"], ["cat", " "], ["cat", "dog | hound"], ["tabby cat", "dog", "Tabby_Cat"]])
def test_ambiguous_class_names_are_refused(names: list[str]) -> None:
    with pytest.raises(UserError, match="data set Mine"):
        check_classnames(names, "data set Mine")


ROWS = (["a"], ["../a", 0, "cat"], ["a", 1.0, "cat"], ["a", 0, "c\x1bat"])
SPLITS = [json.dumps({"train": [row], "val": [], "test": []}) for row in ROWS]
UNTESTED = json.dumps({"train": [["a", 0, "cat"]], "val": [], "test": [["a", -1, "cat"]]})


@pytest.mark.parametrize("text", ["no json", "[]", '{"train": []}', *SPLITS, UNTESTED])
def test_invalid_split_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(UserError, match=r"split\.json: expected JSON"):
        read_split(tmp_path / "split.json", tmp_path)


def test_class_names_come_from_declaration(configure: Callable[..., Any]) -> None:
    from dassl.data.datasets import build_dataset

    data = build_dataset(configure("CoFT"))
    assert data.classnames == ["red circle", "green square", "blue stripes"]


def test_suggested_names() -> None:
    assert did_you_mean("eurosatt", ["digits", "eurosat"]) == "did you mean 'eurosat'?"
    assert did_you_mean("COFT", ["CoFT", "UPL"]) == "did you mean 'CoFT'?"
    assert did_you_mean("xyz", ["digits", "eurosat"]) == "known are: digits, eurosat"
    hint = did_you_mean("WIZZ", [f"TRAINER.A{number:02d}.LR" for number in range(98)] + ["TRAINER.WISER", "SEED"])
    assert hint.startswith("the nearest of 100 known ones: ") and "TRAINER.WISER" in hint and hint.count(",") == 4


def pool_images(root: Path, **settings: Any) -> list[Any]:
    return list(Digits(config(root, **settings)).train_u)


def test_pools_are_disjoint(root: Path) -> None:
    first, second, both = (pool_images(root, NUM_UNLABELED=n, POOL=p) for n, p in ((300, 1), (300, 2), (600, 1)))
    assert len(first) == len(second) == 300
    assert {item.impath for item in first} | {item.impath for item in second} == {item.impath for item in both}
    with pytest.raises(UserError, match=r"DATASET\.POOL is 5.*DATASET\.NUM_UNLABELED, which is 300"):
        pool_images(root, NUM_UNLABELED=300, POOL=5)


def test_unbalanced_pool_has_its_ratio(root: Path) -> None:
    counts = []
    for pool in (1, 2):
        labels = [item.label for item in pool_images(root, NUM_UNLABELED=250, RATIO=10.0, POOL=pool)]
        counts.append([labels.count(c) for c in range(10)])
        assert abs(sum(counts[-1]) - 250) <= 5 and max(counts[-1]) / min(counts[-1]) == pytest.approx(10, rel=0.1)
    assert counts[0] != counts[1] and sorted(counts[0]) == sorted(counts[1])
    assert Digits(config(root, RATIO=10.0)).unlabeled_part == "training images, drawn 10:1 by their labels"
    most = pool_images(root, RATIO=10.0)
    assert 300 < len(most) < 1257
    with pytest.raises(UserError, match=r"DATASET\.NUM_UNLABELED 1000"):
        pool_images(root, NUM_UNLABELED=1000, RATIO=10.0)
