"""Python scripts in their own processes, forked from a server to save the import of PyTorch.

The server imports only libraries, not `dassl`. Forked processes share the seed of Python's hashes; tests for which it
matters use `run_afresh` for one of their processes.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import cast

CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = ["torch", "torchvision.transforms", "clip", "sklearn.metrics", "scipy.stats"]


def preload(*modules: str) -> None:
    """Add modules that the server imports. Call this before the first process starts."""
    CONTEXT.set_forkserver_preload([*PRELOADED, *modules])


preload()

Done = subprocess.CompletedProcess[str]


def become(
    argv: Sequence[str], cwd: str, environment: Mapping[str, str], output: str, without: Path | None = None
) -> None:
    """Run `python *argv` in this process."""
    file = os.open(output, os.O_WRONLY | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    cast(TextIOWrapper, sys.stdout).reconfigure(line_buffering=True)  # else its lines follow a traceback
    multiprocessing.set_start_method(None, force=True)  # loader workers start as usual
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.modules["torch"].set_num_threads(1)
    sys.path[:] = [path for path in sys.path if without is None or (path and Path(path).resolve() != without)]
    if argv[0] == "-m":
        sys.path.insert(0, cwd)
        sys.argv[:] = argv[1:]
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(cwd, argv[0]).parent))
        sys.argv[:] = argv
        runpy.run_path(argv[0], run_name="__main__")


def run_forked(
    argv: Sequence[str],
    cwd: Path,
    environment: Mapping[str, str] = os.environ,
    without: Path | None = None,
    timeout: int = 300,
) -> Done:
    """Run `python *argv` in a forked process, without imports from the folder `without`."""
    with tempfile.NamedTemporaryFile() as output:
        process = CONTEXT.Process(target=become, args=(list(argv), str(cwd), dict(environment), output.name, without))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(argv), timeout)
        return Done(list(argv), process.exitcode, Path(output.name).read_text(encoding="utf-8", errors="replace"))


def run_afresh(argv: Sequence[str], cwd: Path, environment: Mapping[str, str] = os.environ, timeout: int = 300) -> Done:
    """Run `python *argv` in a new process."""
    command = [sys.executable, *argv]
    with tempfile.NamedTemporaryFile() as output:  # not a pipe, which workers of a killed run would keep open
        code = subprocess.call(
            command, cwd=cwd, env=environment, stdout=output, stderr=subprocess.STDOUT, timeout=timeout
        )
        return Done(command, code, Path(output.name).read_text(encoding="utf-8", errors="replace"))
