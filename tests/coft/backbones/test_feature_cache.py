"""Features that are kept on disk between runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from coft.backbones.feature_cache import cached
from coft.core import disk_tables


def drawn() -> torch.Tensor:
    return torch.randn(50, 4, generator=torch.Generator().manual_seed(7))


def test_cache_returns_the_same_bits_and_computes_once(tmp_path: Path) -> None:
    calls = []

    def compute() -> torch.Tensor:
        calls.append(1)
        return drawn()

    first, second = (cached(compute, tmp_path, "a", "b") for _ in range(2))
    assert torch.equal(first, second) and len(calls) == 1
    for n, key in enumerate((("a", "c"), ("ab",), ("a", "b", ""))):
        cached(compute, tmp_path, *key)
        assert len(calls) == n + 2
    assert not list(tmp_path.glob("*.tmp"))


def test_without_a_folder_it_computes_every_time() -> None:
    calls: list[int] = []
    for n in range(2):
        assert torch.equal(cached(lambda: calls.append(1) or drawn(), None, "a"), drawn()) and len(calls) == n + 1


def test_large_features_in_the_cache_are_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    plain = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: seen.append(k["mmap"]) or plain(*a, **k))
    for bound in (disk_tables.IN_MEMORY, 10):
        monkeypatch.setattr(disk_tables, "IN_MEMORY", bound)
        cached(drawn, tmp_path, "key")
        assert torch.equal(cached(drawn, tmp_path, "key"), drawn())
    assert seen == [False, True, True]


def test_where_nothing_can_be_kept_there_is_a_warning_and_the_features(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert torch.equal(cached(drawn, tmp_path / "file" / "cache", "key"), drawn())
    assert "Image features are not kept in" in caplog.text


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "nan", "folder"])
def test_damaged_features_are_computed_anew(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cached(drawn, tmp_path, "key")
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    data[data.find(drawn().numpy().tobytes()[:8])] ^= 1
    file.write_bytes({"cut": data[:200], "emptied": b""}.get(damage, data))
    if damage == "nan":
        torch.save(drawn() * torch.nan, file)
    if damage == "folder":
        file.unlink()
        file.mkdir()
    assert torch.equal(cached(drawn, tmp_path, "key"), drawn())
    assert damage == "folder" or "computed anew" in caplog.text
    assert damage == "folder" or torch.equal(torch.load(file), drawn())


def test_features_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    cached(lambda: drawn() / 0, tmp_path, "key")
    assert not list(tmp_path.iterdir())
