"""setup.sh: where it goes, what it waits for, and the probe by which it tells a working dassl from a broken one."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
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


@pytest.fixture
def sourcing(tmp_path: Path) -> list[str]:
    """A command that sources setup.sh of a project that is ready, and says where it is then."""
    project, binaries = tmp_path / "project", tmp_path / "bin"
    (project / "compat" / "dassl").mkdir(parents=True)
    (project / "scripts").mkdir()
    binaries.mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", project / "scripts")
    for name in ("requirements.txt", "compat/dassl/pyproject.toml"):
        (project / name).touch()
    (binaries / "python").write_text(f"#!/bin/sh\necho {tmp_path}\n")  # its prefix, and the state of what is there
    (binaries / "python").chmod(0o755)
    (tmp_path / ".coft-ready-project").write_text(f"{tmp_path}\n")
    words = f"cd {project}; export VIRTUAL_ENV=x PATH={binaries}:$PATH CDPATH={tmp_path / 'other'}"
    return ["bash", "-c", f"{words}; source scripts/setup.sh; pwd; [ -e /dev/fd/9 ] && echo held; true"]


def test_a_folder_that_cdpath_knows_is_not_taken_for_the_project(sourcing: list[str], tmp_path: Path) -> None:
    (tmp_path / "other" / "scripts").mkdir(parents=True)
    done = subprocess.run(sourcing, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(tmp_path / "project")] and not done.stderr


@pytest.mark.skipif(shutil.which("flock") is None, reason="the system has no flock")
def test_two_do_not_install_at_the_same_time(sourcing: list[str], tmp_path: Path) -> None:
    handle = os.open(tmp_path / "project" / "scripts" / "setup.sh", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    process = subprocess.Popen(sourcing, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("Another script readies the environment")
    assert process.poll() is None
    os.close(handle)
    assert process.stdout.readline().strip() == str(tmp_path / "project") and process.wait(timeout=10) == 0
    process.stdout.close()
