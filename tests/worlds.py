"""Several processes for a test: forks of the present one, which meet at a file."""

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


def start(size: int, work: Callable[[World], Any], folder: Path) -> list[int]:
    """Fork processes that do some work.

    Args:
        size: How many.
        work: What each does; what it returns is kept.
        folder: Where they meet, and where results are kept.

    Returns:
        Their process numbers, by rank.
    """
    folder.mkdir(parents=True)
    children = []
    for rank in range(size):
        child = os.fork()
        if not child:
            _be(rank, size, work, folder)
        children.append(child)
    return children


def _be(rank: int, size: int, work: Callable[[World], Any], folder: Path) -> None:
    code = 1
    try:
        sys.stdout = sys.stderr = sys.__stderr__ = (folder / f"said-{rank}").open("w", buffering=1)  # type: ignore[misc]
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


def end(children: list[int], limit: float = LIMIT) -> tuple[list[int], float]:
    """Wait for processes; those that do not end, or are stopped (SIGSTOP) and alone, are killed.

    Returns:
        Their exit codes (negative: the signal that killed them), and the seconds that it took.
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
        if running <= stopped or time.monotonic() - begin > limit:  # what is stopped never ends by itself
            for child in running:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    return [codes[child] for child in children], time.monotonic() - begin


def in_world(size: int, work: Callable[[World], Any], folder: Path) -> list[Any]:
    """Let some processes do some work.

    Returns:
        What each of them returned, by rank.
    """
    codes, _ = end(start(size, work, folder))
    said = "\n".join((folder / f"said-{rank}").read_text() for rank in range(size))
    assert codes == [0] * size, said[-4000:]
    return [torch.load(folder / f"result-{rank}", weights_only=False) for rank in range(size)]


@contextmanager
def double_precision() -> Iterator[None]:
    """Context in which all that would compute in fp32 computes in fp64: of what differs, rounding is then gone."""
    plain = torch.Tensor.float
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.float = plain  # type: ignore[method-assign]
        torch.set_default_dtype(torch.float32)
