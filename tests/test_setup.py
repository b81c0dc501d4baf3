"""setup.sh: the project folder, the lock, installation, and the argument of --dassl."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def source_command(tmp_path: Path) -> list[str]:
    """Command that sources setup.sh in a project whose environment is ready, and prints the working directory."""
    project, binaries = tmp_path / "project", tmp_path / "bin"
    (project / "compat" / "dassl").mkdir(parents=True)
    (project / "scripts").mkdir()
    binaries.mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", project / "scripts")
    for name in ("requirements.txt", "compat/dassl/pyproject.toml"):
        (project / name).touch()
    (binaries / "python").write_text(f"#!/bin/sh\necho {tmp_path}\n")  # the prefix, and the state of the environment
    (binaries / "python").chmod(0o755)
    (tmp_path / ".coft-ready-project").write_text(f"{tmp_path}\n")
    prepare = f"cd {project}; export VIRTUAL_ENV=x PATH={binaries}:$PATH CDPATH={tmp_path / 'other'}"
    return ["bash", "-c", f"{prepare}; source scripts/setup.sh; pwd; [ -e /dev/fd/9 ] && echo held; true"]


def test_cdpath_does_not_change_project_folder(source_command: list[str], tmp_path: Path) -> None:
    (tmp_path / "other" / "scripts").mkdir(parents=True)
    done = subprocess.run(source_command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(tmp_path / "project")] and not done.stderr


@pytest.mark.skipif(shutil.which("flock") is None, reason="the system has no flock")
def test_second_setup_waits_for_the_first(source_command: list[str], tmp_path: Path) -> None:
    handle = os.open(tmp_path / "project" / "scripts" / "setup.sh", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    process = subprocess.Popen(source_command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("Another script readies the environment")
    assert process.poll() is None
    os.close(handle)
    assert process.stdout.readline().strip() == str(tmp_path / "project") and process.wait(timeout=10) == 0
    process.stdout.close()


@pytest.mark.parametrize(("version", "code"), [("3.9.1", 1), ("3.14.0", 1), ("3.13.2", 0)])
def test_unsupported_python_is_refused(source_command: list[str], tmp_path: Path, version: str, code: int) -> None:
    branches = f"*version_info*) exit {code};; --version) echo Python {version};; *) echo {tmp_path};;"
    (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\ncase "$*" in {branches} esac\n')
    done = subprocess.run(source_command, capture_output=True, text=True, check=False)
    if code:
        (line,) = done.stderr.splitlines()
        assert done.returncode == 2 and line.startswith("error: ") and version in line and "3.10 to 3.13" in line
    else:
        assert done.returncode == 0


@pytest.mark.parametrize("code", [0, 1])
def test_uv_installs_and_pip_is_the_fallback(source_command: list[str], tmp_path: Path, code: int) -> None:
    (tmp_path / ".coft-ready-project").unlink()
    calls = tmp_path / "calls"
    for name, action in (("uv", f"exit {code}"), ("python", f"echo {tmp_path / 'env'}")):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{calls}\n{action}\n')
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "env").mkdir()
    subprocess.run(source_command, capture_output=True, text=True, check=False)
    installs = [line.split()[0] for line in calls.read_text().splitlines() if "pip install" in line]
    assert installs == ["uv", "python"][: code + 1]


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_installs_nothing(source_command: list[str], tmp_path: Path, flag: str) -> None:
    (tmp_path / ".coft-ready-project").unlink()
    scripts = tmp_path / "project" / "scripts"
    shutil.copy(ROOT / "scripts" / "coft.sh", scripts)
    (scripts / "launch.py").touch()
    command = [
        *source_command[:2],
        source_command[2].replace("source scripts/setup.sh", f"bash scripts/coft.sh digits {flag}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("bash scripts/coft.sh [DATASET]") and "Installing" not in done.stdout


@pytest.mark.parametrize("arguments", [["--dassl"], ["--dassl", "upstream="], ["--dassl", "somewhere"]])
def test_wrong_argument_of_dassl_is_refused(arguments: list[str]) -> None:
    command = ["bash", "scripts/setup.sh", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2 and len(lines) == 1 and "upstream=CHECKOUT" in lines[0]


def test_folder_without_upstream_dassl_is_not_linked(tmp_path: Path) -> None:
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
    command = ["bash", str(ROOT / "scripts" / "setup.sh"), "--dassl", "upstream=here"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no dassl/modeling there" in done.stderr


@pytest.mark.parametrize(
    ("script", "module"), [("trials", "compat.dassl.trials"), ("toolboxes", "compat.dassl.toolboxes.compare")]
)
def test_scripts_of_compat_run_their_modules(script: str, module: str, tmp_path: Path) -> None:
    for folder in ("scripts", "compat/dassl"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "scripts" / "setup.sh").write_text("PYTHON=echo\n")
    shutil.copy(ROOT / "compat" / "dassl" / f"{script}.sh", tmp_path / "compat" / "dassl")
    command = ["bash", f"compat/dassl/{script}.sh", "one", "two words"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"-m {module} one two words\n" and importlib.util.find_spec(module)
