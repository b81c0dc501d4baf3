"""The toolbox comparison of compat/dassl, which trains with our script."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.golden.runs import write_data
from toolboxes.compare import main


@pytest.mark.slow
def test_an_environment_agrees_with_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATA", str(write_data(tmp_path)))
    assert main([sys.prefix, sys.prefix, "CoOp", "--opts", "OPTIM.MAX_EPOCH", "1"]) == 0
    row = capsys.readouterr().out.splitlines()[-1].split("|")
    assert [cell.strip() for cell in row[1:5]] == ["CoOp", "5", "0", "0"]
