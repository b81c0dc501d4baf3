"""Python scripts in processes of their own that need not import PyTorch first, which takes seconds.

They are forked from a server that has imported libraries of others and nothing of this project, so that `trainers` or
`datasets` may still be anybody's. What such a process shares with the next one is the seed of Python's hashes; a test
in which it could matter runs one of its processes by `run_afresh`.
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

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ["torch", "torchvision.transforms", "clip", "sklearn.metrics", "scipy.stats"]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(LIBRARIES)

Done = subprocess.CompletedProcess[str]


def become(argv: Sequence[str], cwd: str, environment: Mapping[str, str], output: str) -> None:
    """Do what `python *argv` does, in this process."""
    file = os.open(output, os.O_WRONLY | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    cast(TextIOWrapper, sys.stdout).reconfigure(line_buffering=True)  # else its lines come after a traceback
    multiprocessing.set_start_method(None, force=True)  # workers of loaders start as in any process
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    if threads := environment.get("OMP_NUM_THREADS"):
        sys.modules["torch"].set_num_threads(int(threads))  # read when PyTorch is imported
    libraries = [path for path in sys.path if path and Path(path).resolve() != ROOT]
    if argv[0] == "-m":
        sys.path[:] = [cwd, *libraries]
        sys.argv[:] = argv[1:]
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[:] = [str(Path(cwd, argv[0]).parent), *libraries]
        sys.argv[:] = argv
        runpy.run_path(argv[0], run_name="__main__")


def run_forked(argv: Sequence[str], cwd: Path, environment: Mapping[str, str] = os.environ, timeout: int = 300) -> Done:
    """Run `python *argv`, of which the first is a script or `-m`; `stdout` has both streams."""
    with tempfile.NamedTemporaryFile() as output:
        process = CONTEXT.Process(target=become, args=(list(argv), str(cwd), dict(environment), output.name))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(argv), timeout)
        printed = Path(output.name).read_text(encoding="utf-8", errors="replace")
        return subprocess.CompletedProcess(list(argv), process.exitcode, printed)


def run_afresh(argv: Sequence[str], cwd: Path, environment: Mapping[str, str] = os.environ, timeout: int = 300) -> Done:
    """The same, as everybody does it."""
    with tempfile.NamedTemporaryFile() as output:  # no pipe: workers of a killed run hold it open for a while
        done = subprocess.run(
            [sys.executable, *argv], cwd=cwd, env=environment, stdout=output, stderr=subprocess.STDOUT, timeout=timeout
        )
        printed = Path(output.name).read_text(encoding="utf-8", errors="replace")
        return subprocess.CompletedProcess(list(argv), done.returncode, printed)
