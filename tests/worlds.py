"""Groups of processes for tests: forks of the present one that meet at a file."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from coft.core import processes
from coft.core.world import World

LIMIT = 60  # seconds


def start_processes(size: int, work: Callable[[World], Any], folder: Path) -> list[int]:
    """Fork `size` processes that call `work`; results and output are written to `folder`.

    Returns:
        Process numbers by rank.
    """
    folder.mkdir(parents=True)
    children = []
    for rank in range(size):
        child = os.fork()
        if not child:
            _run(rank, size, work, folder)
        children.append(child)
    return children


def _run(rank: int, size: int, work: Callable[[World], Any], folder: Path) -> None:
    code = 1
    try:
        sys.stdout = sys.stderr = sys.__stderr__ = (folder / f"output-{rank}").open("w", buffering=1)  # type: ignore[misc]
        store = dist.FileStore(str(folder / "store"), size)
        try:
            result = work(processes.join(store, rank, size) if size > 1 else World())
            torch.save(result, folder / f"result-{rank}")
            processes.leave()
            code = 0
        except Exception as error:
            traceback.print_exc()
            processes.fail(error, str(error), 1)
    finally:
        os._exit(code)


def wait_for(children: list[int], limit: float = LIMIT) -> tuple[list[int], float]:
    """Wait for processes; kill those that reach the limit or are stopped (SIGSTOP) when all others have ended.

    Returns:
        Exit codes (negative: the signal), and the seconds of waiting.
    """
    begin, codes, stopped = time.monotonic(), dict[int, int](), set[int]()
    while len(codes) < len(children):
        for child in children:
            if child not in codes:
                number, status = os.waitpid(child, os.WNOHANG | os.WUNTRACED)
                if number and os.WIFSTOPPED(status):
                    stopped.add(child)
                elif number:
                    codes[child] = os.waitstatus_to_exitcode(status)
        running = set(children) - codes.keys()
        if running <= stopped or time.monotonic() - begin > limit:  # a stopped process never ends by itself
            for child in running:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    return [codes[child] for child in children], time.monotonic() - begin


def in_world(size: int, work: Callable[[World], Any], folder: Path) -> list[Any]:
    """Call `work` in a group of processes.

    Returns:
        Results by rank.
    """
    codes, _ = wait_for(start_processes(size, work, folder))
    output = "\n".join((folder / f"output-{rank}").read_text() for rank in range(size))
    assert codes == [0] * size, output[-4000:]
    return [torch.load(folder / f"result-{rank}", weights_only=False) for rank in range(size)]


@contextmanager
def double_precision() -> Iterator[None]:
    """Context that computes in fp64 instead of fp32, so that rounding errors nearly vanish."""
    plain = torch.Tensor.float
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.float = plain  # type: ignore[method-assign]
        torch.set_default_dtype(torch.float32)
