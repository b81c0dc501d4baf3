"""Measuring predictions: the arguments of the command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coft.core.errors import UserError
from scripts.bench import predict


def test_run_path_is_relative_to_the_callers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLED_FROM", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["bench", "run", "images"])
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'run'}: no such folder")):
        predict.measure()
