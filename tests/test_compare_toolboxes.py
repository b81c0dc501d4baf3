"""Toolbox comparison of compat/dassl with train.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compat.dassl.tests.forks import run_forked
from tests.golden.runs import write_data
from toolboxes.compare import compare, record


@pytest.mark.slow
def test_run_of_train_script_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], *, cwd: Path, **_: Any) -> Any:
        done = run_forked(command[1:], cwd)
        done.stderr = done.stdout
        return done

    monkeypatch.setenv("DATA", str(write_data(tmp_path)))
    monkeypatch.setattr(subprocess, "run", run)
    training = record(Path(sys.prefix), "CoOp", ["OPTIM.MAX_EPOCH", "1"])
    row = compare("CoOp", training, training)
    assert (row["steps"], row["all"], row["same"]) == (5, "0.0e+00", True)
