"""Rows of pictures of a class."""

from __future__ import annotations

import pandas as pd
import pytest

from coft.report.blocks import Pictures, strips_of
from coft.report.groups import groups_by_class


@pytest.mark.parametrize(
    ("count", "surest", "least"),
    [
        (1, [0], []),
        (3, [0, 1, 2], []),
        (5, [0, 1, 2], [4, 3]),
        (6, [0, 1, 2], [5, 4, 3]),
        (9, [0, 1, 2], [8, 7, 6]),
    ],
)
def test_no_image_is_among_the_surest_and_the_least_sure(count: int, surest: list[int], least: list[int]) -> None:
    paths = [f"/photos/{place}.png" for place in range(count)]
    images = pd.DataFrame({"path": paths, "class": "cat", "confidence": [0.9 - 0.1 * place for place in range(count)]})
    strips = strips_of(groups_by_class(images)["cat"], 3, Pictures(images))
    found = {strip.title: [int(picture.path[8:-4]) for picture in strip.pictures] for strip in strips}
    assert found == {"surest": surest, **({"least sure": least} if least else {})}
    assert all(strip.count == count for strip in strips)
