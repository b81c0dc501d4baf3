"""A process of its own for each way, so that its peak memory is its own. It answers what it is asked."""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from .ways import Setting, Step

GEMM = 3072  # rows and columns of the matrices that tell the machine's rate
GEMM_SECONDS = 1.0  # of multiplying them, before the median is taken
_STATUS = Path("/proc/self/status")


class WorkerDiedError(Exception):
    """A worker ended without an answer: the system killed it, as a rule for its memory."""


class Worker:
    """A process that has one setting's peer, or none and multiplies matrices alone.

    Args:
        setting: What it measures.
        idle: Build no peer.
    """

    def __init__(self, setting: Setting, idle: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        os.environ["OMP_NUM_THREADS"] = str(setting.threads)  # read when the worker loads its libraries
        self.process = context.Process(target=serve, args=(theirs, setting, idle), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, question: str) -> Any:
        """Ask for what a name of `Answers` gives.

        Raises:
            WorkerDiedError: If the process is gone.
            RuntimeError: If it failed; the message is its own.
        """
        try:
            self.connection.send(question)
            kind, answer = self.connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerDiedError(question) from error
        if kind == "error":
            raise RuntimeError(answer)
        if kind == "memory":
            raise WorkerDiedError(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        self.connection.close()
        self.process.join(timeout=10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def serve(connection: Connection, setting: Setting, idle: bool) -> None:
    """Answer questions until the other end is closed."""
    torch.set_num_threads(setting.threads)
    answers: Answers | None = None
    while True:
        try:
            question = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            answers = answers or Answers(setting, idle)
            connection.send(("answer", getattr(answers, question)()))
        except torch.OutOfMemoryError as error:
            connection.send(("memory", str(error)))
        except RuntimeError as error:
            kind = "memory" if "allocate memory" in str(error) else "error"
            connection.send((kind, f"{setting}: {error}"))
        except KeyboardInterrupt:
            return


class Answers:
    """What a worker can be asked.

    Args:
        setting: What it measures.
        idle: Build no peer.
    """

    def __init__(self, setting: Setting, idle: bool) -> None:
        self.setting = setting
        if idle:
            return
        self.step = Step(setting)
        gc.collect()
        self.before = memory_now(setting.device)
        forget_peak(setting.device)

    def first(self) -> dict[str, Any]:
        """Make the first step, which is not timed.

        Returns:
            Matmul operations, losses and gradients.
        """
        with FlopCounterMode(display=False, custom_mapping=_ON_CPU) as counter:
            losses = self.step()
        return {
            "flops": counter.get_total_flops(),
            "losses": [float(loss) for loss in losses],
            "gradients": [gradient.numpy() for gradient in self.step.gradients()],
        }

    def time(self) -> dict[str, float]:
        """Make a step. Returns its seconds, of the clock and of the processor."""
        return timed(self.step, self.setting.device)

    def memory(self) -> dict[str, int]:
        """Bytes: the most since the process began to make steps, and what it had before."""
        return {"peak": memory_peak(self.setting.device), "before": self.before}

    def rate(self) -> dict[str, float]:
        """Matmul operations a second of two large matrices in the setting's precision, by both clocks."""
        dtype = torch.float32 if self.setting.precision == "fp32" else torch.bfloat16
        a, b = (torch.randn(GEMM, GEMM, device=self.setting.device).to(dtype) for _ in range(2))
        found: list[dict[str, float]] = [timed(lambda: a @ b, self.setting.device)]
        while sum(each["clock"] for each in found) < GEMM_SECONDS or len(found) < 4:
            found.append(timed(lambda: a @ b, self.setting.device))
        middle = sorted(found[1:], key=lambda each: each["clock"])[len(found) // 2 - 1]
        return {name: 2 * GEMM**3 / seconds for name, seconds in middle.items()}


def timed(function: Callable[[], Any], device: str) -> dict[str, float]:
    """Call a function. Returns seconds of the wall clock ("clock") and of the processor ("processor")."""
    _wait(device)
    clock, processor = time.perf_counter(), time.process_time()
    function()
    _wait(device)
    return {"clock": time.perf_counter() - clock, "processor": time.process_time() - processor}


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))


# What torch does not count of itself, by the shapes of the arguments.
_ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def memory_now(device: str) -> int:
    """Bytes that this process has now: allocated on a GPU, else resident."""
    return torch.cuda.memory_allocated() if device == "cuda" else _resident("VmRSS")


def memory_peak(device: str) -> int:
    """The most bytes that this process had since `forget_peak`, or, where that cannot be, since its start."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else _resident("VmHWM")


def forget_peak(device: str) -> None:
    """Start to look for the peak anew."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif _STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")


def _resident(field: str) -> int:
    if not _STATUS.exists():  # not Linux
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    lines = _STATUS.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def available_memory(device: str) -> int:
    """Bytes that a new process could have."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    path = Path("/proc/meminfo")
    if path.exists():
        lines = path.read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
