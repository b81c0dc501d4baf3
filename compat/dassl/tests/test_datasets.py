"""Datum and data sets."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dassl.data.datasets import DatasetBase, Datum
from toys import datum


def test_datum(images: Path) -> None:
    path = str(images / "00.png")
    item = Datum(impath=path, label=2, domain=1, classname="blue")
    assert (item.impath, item.label, item.domain, item.classname) == (path, 2, 1, "blue")
    assert vars(item) == {"_impath": path, "_label": 2, "_domain": 1, "_classname": "blue"}
    with pytest.raises(AttributeError):
        item.label = 0  # type: ignore[misc]


def test_datum_is_pickled_under_the_module_name_of_upstream(images: Path) -> None:
    item = Datum(str(images / "00.png"), 1, 0, "green")
    assert b"dassl.data.datasets.base_dataset" in pickle.dumps(item)
    assert vars(pickle.loads(pickle.dumps(item))) == vars(item)


def test_class_names_come_from_train_x() -> None:
    train = [datum(2, "c"), datum(0, "a"), datum(2, "c"), datum(4, "e")]
    dataset = DatasetBase(train_x=train, train_u=train[:1], val=[datum(7, "z")], test=[datum(9, "y")])
    assert dataset.num_classes == 5
    assert dataset.lab2cname == {0: "a", 2: "c", 4: "e"}
    assert dataset.classnames == ["a", "c", "e"]
    assert (dataset.train_x, dataset.train_u) == (train, train[:1])
    assert [dataset.val[0].label, dataset.test[0].label] == [7, 9]  # type: ignore[index]


def test_domains_are_checked() -> None:
    class Domains(DatasetBase):
        domains = ("photo", "sketch")

    dataset = Domains(train_x=[datum(0)])
    dataset.check_input_domains(["photo"], ["sketch", "photo"])
    for source, target in ((["photo"], ["clipart"]), (["clipart"], ["photo"])):
        with pytest.raises(ValueError, match="clipart"):
            dataset.check_input_domains(source, target)
    with pytest.raises((ValueError, AssertionError)):
        dataset.check_input_domains([], ["photo"])


labels = st.lists(st.integers(0, 4), min_size=1, max_size=30)


@given(labels=labels, shots=st.integers(1, 6), repeat=st.booleans(), seed=st.integers(0, 99))
def test_few_shots(labels: list[int], shots: int, repeat: bool, seed: int) -> None:
    items = [datum(label, domain=i) for i, label in enumerate(labels)]
    dataset = DatasetBase(train_x=items)
    random.seed(seed)
    selected = dataset.generate_fewshot_dataset(items, num_shots=shots, repeat=repeat)
    order = list(dict.fromkeys(labels))
    assert list(dict.fromkeys(item.label for item in selected)) == order
    position = 0
    random.seed(seed)
    for label in order:
        class_items = [item for item in items if item.label == label]
        if len(class_items) >= shots:
            expected = random.sample(class_items, shots)
        else:
            expected = random.choices(class_items, k=shots) if repeat else class_items
        assert selected[position : position + len(expected)] == expected
        position += len(expected)
    assert position == len(selected)


def test_few_shots_of_several_sources(capsys: pytest.CaptureFixture[str]) -> None:
    one, two = [datum(i % 2) for i in range(8)], [datum(i % 3) for i in range(9)]
    dataset = DatasetBase(train_x=one)
    assert dataset.generate_fewshot_dataset(one, num_shots=-1) is one
    assert dataset.generate_fewshot_dataset(one, two, num_shots=0) == (one, two)
    assert capsys.readouterr().out == ""
    first, second = dataset.generate_fewshot_dataset(one, two, num_shots=2)
    assert (len(first), len(second)) == (4, 6)
    assert capsys.readouterr().out == "Creating a 2-shot dataset\n"


def test_grouping() -> None:
    items = [datum(i % 3, domain=i % 2) for i in range(12)]
    dataset = DatasetBase(train_x=items)
    by_label, by_domain = dataset.split_dataset_by_label(items), dataset.split_dataset_by_domain(items)
    assert by_label[1] == items[1::3]
    assert by_domain[0] == items[::2]
    assert by_label["no such label"] == []  # type: ignore[index]
