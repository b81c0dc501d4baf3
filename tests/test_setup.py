"""setup.sh: where it goes, what it waits for, and what it expects after --dassl."""

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


@pytest.mark.parametrize(("version", "code"), [("3.9.1", 1), ("3.14.0", 1), ("3.13.2", 0)])
def test_a_python_that_is_too_old_or_new_is_refused_before_anything_is_installed(
    sourcing: list[str], tmp_path: Path, version: str, code: int
) -> None:
    says = f"*version_info*) exit {code};; --version) echo Python {version};; *) echo {tmp_path};;"
    (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\ncase "$*" in {says} esac\n')
    done = subprocess.run(sourcing, capture_output=True, text=True, check=False)
    if code:
        line = f"error: the active environment has Python {version}, and this needs Python 3.10 to 3.13; deactivate it"
        assert done.returncode == 2 and done.stderr.startswith(line) and len(done.stderr.splitlines()) == 1
    else:
        assert done.returncode == 0


@pytest.mark.parametrize("code", [0, 1])
def test_uv_installs_where_it_is_there_and_pip_what_uv_cannot(sourcing: list[str], tmp_path: Path, code: int) -> None:
    (tmp_path / ".coft-ready-project").unlink()
    called = tmp_path / "called"
    for name, does in (("uv", f"exit {code}"), ("python", f"echo {tmp_path / 'env'}")):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{called}\n{does}\n')
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "env").mkdir()
    subprocess.run(sourcing, capture_output=True, text=True, check=False)
    installs = [line.split()[0] for line in called.read_text().splitlines() if "pip install" in line]
    assert installs == ["uv", "python"][: code + 1]


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_installs_nothing(sourcing: list[str], tmp_path: Path, flag: str) -> None:
    (tmp_path / ".coft-ready-project").unlink()
    scripts = tmp_path / "project" / "scripts"
    shutil.copy(ROOT / "scripts" / "coft.sh", scripts)
    (scripts / "launch.py").touch()
    command = [*sourcing[:2], sourcing[2].replace("source scripts/setup.sh", f"bash scripts/coft.sh digits {flag}")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("bash scripts/coft.sh [DATASET]") and "Installing" not in done.stdout


@pytest.mark.parametrize("arguments", [["--dassl"], ["--dassl", "upstream="], ["--dassl", "somewhere"]])
def test_setup_says_what_it_expects(arguments: list[str]) -> None:
    command = ["bash", "scripts/setup.sh", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2 and len(lines) == 1 and "upstream=CHECKOUT" in lines[0]


def test_what_is_no_checkout_of_upstream_is_not_linked(tmp_path: Path) -> None:
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
    command = ["bash", str(ROOT / "scripts" / "setup.sh"), "--dassl", "upstream=here"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no dassl/modeling there" in done.stderr


@pytest.mark.parametrize(
    ("script", "module"), [("trials", "compat.dassl.trials"), ("toolboxes", "compat.dassl.toolboxes.compare")]
)
def test_commands_of_compat_run_in_the_environment(script: str, module: str, tmp_path: Path) -> None:
    for folder in ("scripts", "compat/dassl"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "scripts" / "setup.sh").write_text("PYTHON=echo\n")
    shutil.copy(ROOT / "compat" / "dassl" / f"{script}.sh", tmp_path / "compat" / "dassl")
    command = ["bash", f"compat/dassl/{script}.sh", "one", "two words"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"-m {module} one two words\n" and importlib.util.find_spec(module)
