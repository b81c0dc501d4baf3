"""The probe by which setup.sh tells a working dassl from a broken one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import probe_dassl

ROOT = Path(probe_dassl.__file__).parents[1]


def probe(path: Path | None = None) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(path)!r}); " if path else ""
    code += "from scripts import probe_dassl; sys.exit(probe_dassl.main())"
    return subprocess.run(
        [sys.executable, "-c", "import sys; " + code], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_dassl_that_runs_these_tests_works() -> None:
    assert probe().returncode == 0


def test_a_broken_one_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "dassl").mkdir()
    (tmp_path / "dassl" / "__init__.py").write_text("raise ImportError('cannot import name x from torch._six')")
    result = probe(tmp_path)
    lines = result.stderr.strip().splitlines()
    assert result.returncode == 2 and len(lines) == 1
    assert lines[0].startswith("error: the installed dassl") and "pip uninstall" in lines[0]


def test_a_schedule_that_does_not_step_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Frozen:
        def __init__(self, *_: object) -> None: ...

        def step(self) -> None: ...

    monkeypatch.setattr("dassl.optim.build_lr_scheduler", Frozen)
    assert probe_dassl.main() == 2
    assert "a schedule with warm-up does not step" in capsys.readouterr().err


def test_none_is_told_from_a_broken_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert probe_dassl.main() == 3
