"""Groups of images against naive loops."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from coft.report.groups import confusion, groups_by_class, moves

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
    table.loc[[3, 9], "zero_shot"] = ""  # images that are not of the pool
    table.loc[[4, 9], "peer_b"] = ""
    table.loc[[5, 9], ["pseudo_label", "kept_for"]] = ""
    return table


def expected(images: pd.DataFrame, name: str) -> dict[str, list[int]]:
    rows = [(place, row) for place, row in enumerate(images.to_dict("records")) if row["class"] == name]

    def ordered(chosen: list[tuple[int, dict[str, object]]], key: str, sign: int) -> list[int]:
        return [place for place, row in sorted(chosen, key=lambda pair: (sign * pair[1][key], pair[0]))]

    for _, row in rows:
        row["clean"] = min(row["p_clean_a"], row["p_clean_b"])
    out = [(p, r) for p, r in rows if r["kept_for"] == "" and r["pseudo_label"] != ""]
    apart = [(p, r) for p, r in rows if "" not in (r["peer_a"], r["peer_b"]) and r["peer_a"] != r["peer_b"]]
    moved = [(p, r) for p, r in rows if r["zero_shot"] not in ("", name)]
    return {
        "surest": ordered(rows, "confidence", -1),
        "least sure": ordered(rows, "confidence", 1),
        "kept out by the filter": ordered(out, "clean", 1),
        "peers disagree": ordered(apart, "confidence", -1),
        "changed since zero-shot": ordered(moved, "confidence", -1),
    }


@pytest.mark.parametrize("name", CLASSES)
def test_groups_of_a_class_are_those_of_a_loop(images: pd.DataFrame, name: str) -> None:
    found = {group.kind: group.places for group in groups_by_class(images)[name]}
    assert found == expected(images, name) and all(found.values())


def test_groups_need_their_columns_and_images(images: pd.DataFrame) -> None:
    plain = groups_by_class(images[["class", "confidence"]])["cat"]
    assert [group.kind for group in plain] == ["surest", "least sure"]
    assert groups_by_class(images).keys() == set(CLASSES) and groups_by_class(images.iloc[:0]) == {}


def test_moves_and_confusion_are_those_of_a_loop(images: pd.DataFrame) -> None:
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
