"""Duplicate images and thumbnails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from coft.report import thumbnails
from coft.report.duplicates import MAX_PAIRS, alike_pairs, connected_groups, equal_groups, near_groups
from coft.report.thumbnails import BROKEN, difference_hash, embed

from .runs import write_images

SIDE = 96


def test_files_of_equal_content_are_grouped() -> None:
    copies = pd.DataFrame({"group": ["1", "2", "2", "1", "2"], "path": list("abcde")})
    assert equal_groups(copies) == [["b", "c", "e"], ["a", "d"]]


def test_pairs_are_unique_and_sorted_by_similarity() -> None:
    nearest = np.array([1, 0, 3, 2, 2, 5])
    likeness = np.array([0.96, 0.96, 0.99, 0.99, 0.97, 1.0])
    assert alike_pairs(nearest, likeness) == [(2, 3), (2, 4), (0, 1)]
    assert connected_groups([(2, 3), (2, 4), (0, 1)]) == [[2, 3, 4], [0, 1]] and connected_groups([]) == []
    count = 3 * MAX_PAIRS
    assert len(alike_pairs(np.arange(count) ^ 1, np.ones(count))) == MAX_PAIRS


def test_near_duplicates_need_similar_features_and_hashes(tmp_path: Path) -> None:
    y, x = np.mgrid[:120, :160]
    waves = (128 + 60 * np.sin(x / 9) + 60 * np.cos((x + y) / 17)).astype(np.uint8)
    Image.fromarray(waves).save(tmp_path / "one.png")
    Image.fromarray(waves).resize((80, 60)).convert("RGB").save(tmp_path / "small.jpg", quality=60)
    Image.fromarray(waves[:, ::-1].copy()).save(tmp_path / "mirrored.png")
    paths = [str(tmp_path / name) for name in ("one.png", "small.jpg", "mirrored.png", "gone.png")]
    nearest, likeness = np.array([1, 0, 0, 0]), np.full(4, 0.99)
    assert near_groups(paths, nearest, likeness) == [[0, 1]]
    assert near_groups(paths, nearest, np.full(4, 0.5)) == []
    assert difference_hash(paths[3]) is None


def test_thumbnails_are_embedded_up_to_a_number_of_bytes(tmp_path: Path) -> None:
    paths = write_images(tmp_path, [f"{i}.png" for i in range(6)])
    uris = embed([*paths, paths[0], "gone.png"], 10**6, SIDE)
    assert uris[0] == uris[6] and uris[7] == BROKEN and None not in uris
    lengths = [len(uri or "") for uri in uris]
    for count in range(7):
        part = embed([*paths, paths[0]], sum(lengths[:count]) + 3, SIDE)
        assert part == [*uris[:count], *[None] * (7 - count)]


def test_no_more_images_are_read_than_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(thumbnails, "data_uri", lambda path, side: read.append(path) or "x" * 100)
    uris = embed([str(i) for i in range(5000)], 1000, SIDE)
    assert uris[:10] == ["x" * 100] * 10 and set(uris[10:]) == {None} and len(read) < 600
