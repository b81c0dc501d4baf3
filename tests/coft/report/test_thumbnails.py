"""Thumbnails."""

from __future__ import annotations

from pathlib import Path

import pytest

from coft.report import thumbnails
from coft.report.thumbnails import BROKEN, embed

from .runs import write_images

SIDE = 96


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
