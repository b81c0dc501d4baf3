"""Where results are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coft.core import paths as places


def test_a_checkout_that_cannot_be_written_to_has_its_cache_with_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "HOME", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert places.cache_folder() == tmp_path / "cache"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert places.cache_folder() == tmp_path / "user" / "coft"


def test_a_user_without_a_home_has_a_cache_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(places, "INSTALLED", True)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    assert places.cache_folder().name.startswith("coft-")
