"""Groups of images and maps of classes against naive loops."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coft.report.blocks import Pictures, groups_by_class, strips_of
from coft.report.maps import confusion, make_map, moves

CLASSES = ["cat", "dog", "nan"]


@pytest.fixture
def images() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    names = np.array([*CLASSES], dtype=object)
    columns = {name: names[rng.integers(3, size=80)] for name in ("class", "zero_shot", "peer_a", "peer_b")}
    numbers = {name: rng.integers(0, 9, 80) / 10 for name in ("confidence", "p_clean_a", "p_clean_b")}
    table = pd.DataFrame(columns | numbers)
    table["pseudo_label"] = table["class"]
    table["kept_for"] = np.where(rng.random(80) < 0.6, "peer_a", "")
    table.loc[[3, 9], "zero_shot"] = ""  # images outside the pool
    table.loc[[4, 9], "peer_b"] = ""
    table.loc[[5, 9], ["pseudo_label", "kept_for"]] = ""
    return table


def expected(images: pd.DataFrame, name: str) -> dict[str, list[int]]:
    rows = [(index, row) for index, row in enumerate(images.to_dict("records")) if row["class"] == name]

    def ordered(indexed_rows: list[tuple[int, dict[str, object]]], key: str, sign: int) -> list[int]:
        return [index for index, row in sorted(indexed_rows, key=lambda pair: (sign * pair[1][key], pair[0]))]

    for _, row in rows:
        row["clean"] = min(row["p_clean_a"], row["p_clean_b"])
    kept_out = [(index, row) for index, row in rows if row["kept_for"] == "" and row["pseudo_label"] != ""]
    disagreed = [
        (index, row)
        for index, row in rows
        if "" not in (row["peer_a"], row["peer_b"]) and row["peer_a"] != row["peer_b"]
    ]
    changed = [(index, row) for index, row in rows if row["zero_shot"] not in ("", name)]
    return {
        "surest": ordered(rows, "confidence", -1),
        "least sure": ordered(rows, "confidence", 1),
        "not kept by the filter": ordered(kept_out, "clean", 1),
        "peers disagree": ordered(disagreed, "confidence", -1),
        "changed since zero-shot": ordered(changed, "confidence", -1),
    }


@pytest.mark.parametrize("name", CLASSES)
def test_groups_equal_a_naive_loop(images: pd.DataFrame, name: str) -> None:
    groups = groups_by_class(images)[name]
    assert groups == expected(images, name) and all(groups.values())


def test_groups_need_their_columns_and_images(images: pd.DataFrame) -> None:
    plain = groups_by_class(images[["class", "confidence"]])["cat"]
    assert list(plain) == ["surest", "least sure"]
    assert groups_by_class(images).keys() == set(CLASSES) and groups_by_class(images.iloc[:0]) == {}


def test_moves_and_confusion_equal_a_naive_loop(images: pd.DataFrame) -> None:
    before, after = images["zero_shot"], images["class"]
    counts = confusion(before, after, CLASSES)
    for row, first in enumerate(CLASSES):
        for column, second in enumerate(CLASSES):
            assert counts[row, column] == sum(a == first and b == second for a, b in zip(before, after, strict=True))
    table = moves(before, after)
    assert (table["before"] != table["after"]).all() and not (table[["before", "after"]] == "").any().any()
    assert table["images"].sum() == counts.sum() - np.trace(counts)
    assert list(table["images"]) == sorted(table["images"], reverse=True)
    assert len(moves(before, before)) == 0 and math.isclose(confusion(before, before, CLASSES).trace(), 78)


def test_a_repeated_class_name_is_counted_once() -> None:
    names = pd.Series(["missile", "dog", "missile"])
    assert confusion(names, names, ["missile", "dog", "missile"]).tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 2]]


@pytest.mark.parametrize(
    ("count", "most_confident", "least_confident"),
    [
        (1, [0], []),
        (3, [0, 1, 2], []),
        (5, [0, 1, 2], [4, 3]),
        (6, [0, 1, 2], [5, 4, 3]),
        (9, [0, 1, 2], [8, 7, 6]),
    ],
)
def test_the_most_and_least_confident_images_are_disjoint(
    count: int, most_confident: list[int], least_confident: list[int]
) -> None:
    paths = [f"/photos/{index}.png" for index in range(count)]
    images = pd.DataFrame({"path": paths, "class": "cat", "confidence": [0.9 - 0.1 * index for index in range(count)]})
    strips = strips_of(groups_by_class(images)["cat"], 3, Pictures(images, Path()))
    shown = {strip.title: [int(picture.path[8:-4]) for picture in strip.pictures] for strip in strips}
    assert shown == {"surest": most_confident, **({"least sure": least_confident} if least_confident else {})}
    assert all(strip.count == count for strip in strips)


def test_a_map_of_many_classes_has_no_matrix() -> None:
    names = [f"class {number}" for number in range(5000)]
    after = pd.Series(names)
    tracemalloc.start()
    drawn = make_map("", ("", after.shift(fill_value=names[0])), ("", after), names)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert drawn is not None and not drawn.cells and math.isclose(drawn.share, 1 - 1 / 5000) and peak < 50 << 20
