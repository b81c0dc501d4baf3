"""Probe of the installed dassl: working, broken or missing."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from upstream import probe


def test_installed_dassl_works() -> None:
    assert probe.main() == 0


def test_broken_dassl_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "dassl").mkdir()
    (tmp_path / "dassl" / "__init__.py").write_text("raise ImportError('cannot import name x from torch._six')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, probe.__file__], env=environment, capture_output=True, text=True, check=False
    )
    (line,) = done.stderr.strip().splitlines()
    assert done.returncode == 2
    assert line.startswith("error: the installed dassl") and "pip uninstall" in line


def test_schedule_that_does_not_step_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Frozen:
        def __init__(self, *_: object) -> None: ...

        def step(self) -> None: ...

    monkeypatch.setattr("dassl.optim.build_lr_scheduler", Frozen)
    assert probe.main() == 2


def test_missing_dassl_has_another_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert probe.main() == 3
