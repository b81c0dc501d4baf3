"""Processes of a distributed run: how they join, report errors, and notice the failure of another process.

`torchrun` starts the processes and assigns their ranks. A watch thread in each process writes a heartbeat to torchrun's
store every few seconds, and ends the process as soon as another one has failed or its heartbeat is overdue.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from coft.core.world import SINGLE_PROCESS, World

from .errors import UserError, first_line

log = logging.getLogger(__name__)
HEARTBEAT_SECONDS = 2.0  # seconds between heartbeats
HEARTBEAT_TIMEOUT = 20.0  # seconds without a heartbeat after which a process counts as dead
COLLECTIVE_TIMEOUT = timedelta(days=7)  # the watch ends hanging collectives, and labelling may take hours
PATIENCE = 3.0  # seconds: longer than torchrun and the watch take to notice a failure
FAILED = "failed"  # key in the store, set by the first process to fail
PEER_FAILURE_MARKERS = ("gloo", "NCCL", "Connection", "connection")  # in errors caused by another process's end

_present: World = SINGLE_PROCESS
_watch: Watch | None = None


def world() -> World:
    """Return the group of processes of this run."""
    return _present


def several() -> bool:
    """Return whether torchrun or a similar launcher has started several processes.

    Raises:
        UserError: If WORLD_SIZE is not a number.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if not (size.isascii() and size.isdecimal() and len(size) < 7):
        raise UserError(f"WORLD_SIZE is {size!r}; expected a number of processes, as torchrun sets it, or nothing")
    return int(size) > 1


def join(store: Any = None, rank: int | None = None, size: int | None = None) -> World:
    """Join the other processes of the run, and start the watch.

    Args:
        store: Store of torch.distributed for the rendezvous. Default: the environment variables that torchrun sets.
        rank: Rank of this process; required with a store.
        size: Number of processes; required with a store.

    Returns:
        The group of processes; `SINGLE_PROCESS` if this is the only one.

    Raises:
        UserError: If the rendezvous fails, or the machine has GPUs but none for this process.
    """
    global _present, _watch
    if store is None:
        if not several():
            return SINGLE_PROCESS
        try:
            store, rank, size = next(dist.rendezvous("env://", timeout=timedelta(minutes=5)))
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"the processes cannot connect to each other ({first_line(error)}); restart torchrun"
            ) from error
    assert rank is not None and size is not None
    gpus = torch.cuda.device_count()
    if gpus:
        place = int(os.environ.get("LOCAL_RANK", rank))
        if place >= gpus:
            raise UserError(f"process {place} of this machine has no GPU; start at most {gpus} processes here")
        torch.cuda.set_device(place)
    kind = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    dist.init_process_group(kind, store=store, rank=rank, world_size=size, timeout=COLLECTIVE_TIMEOUT)
    _present = World(rank, size)
    _watch = Watch(store, rank, size)
    _watch.start()
    return _present


def leave() -> None:
    """Leave the group at the end of the run, after waiting for all processes to reach it."""
    global _present, _watch
    if _watch is not None:
        _watch.leaving = True
        _present.barrier()
        _watch.stop()
        dist.destroy_process_group()
    _present, _watch = SINGLE_PROCESS, None


def fail(error: BaseException, line: str, code: int) -> None:
    """End this process, and thereby all others. Only the first process to fail prints its message.

    Does nothing if this is the only process.

    Args:
        error: The error. If another process's end has caused it, the message says so instead.
        line: Message of the error.
        code: Exit code.
    """
    if _watch is None:
        return
    mine = f"rank {_present.rank} of {_present.size}"
    if isinstance(error, RuntimeError) and any(word in str(error) for word in PEER_FAILURE_MARKERS):
        time.sleep(PATIENCE)  # torchrun ends this process, or the watch does, if the other one has said why it failed
        _watch.end(f"{mine} has lost another process, which was killed or ran out of memory; {RESUME_HINT}", 1)
    _watch.end(f"{mine}: {line}", code)


class Watch(threading.Thread):
    """Thread that ends this process when another one has failed, so that it does not wait for it forever.

    Args:
        store: Store that the processes share.
        rank: Rank of this process.
        size: Number of processes.
    """

    def __init__(self, store: Any, rank: int, size: int) -> None:
        super().__init__(daemon=True, name="watch")
        self.store, self.rank, self.size = store, rank, size
        self.last_beat = dict.fromkeys(range(size), (b"", time.monotonic()))
        self.over, self.leaving = threading.Event(), False

    def stop(self) -> None:
        """Stop the thread after a successful run."""
        self.over.set()
        self.join()

    def run(self) -> None:
        """Write heartbeats, and check those of other processes, until stopped."""
        beats = 0
        while not self.over.is_set():
            try:
                beats += 1
                self.store.set(f"beat/{self.rank}", str(beats))
                if self.store.check([FAILED]):
                    self.quit("", 1)
                self.check_heartbeats()
            except (RuntimeError, OSError) as error:  # the store is gone, and with it its host
                if not (self.over.is_set() or self.leaving):
                    self.quit(f"rank {self.rank} of {self.size} has lost the others ({first_line(error)})", 1)
            self.over.wait(HEARTBEAT_SECONDS)

    def check_heartbeats(self) -> None:
        """End the run if a heartbeat is overdue. Rank 0 checks all processes; the others check rank 0."""
        for rank in range(self.size) if self.rank == 0 else (0,):
            key = f"beat/{rank}"
            beat = self.store.get(key) if self.store.check([key]) else b""
            if beat != self.last_beat[rank][0]:
                self.last_beat[rank] = beat, time.monotonic()
            elif time.monotonic() - self.last_beat[rank][1] > HEARTBEAT_TIMEOUT:
                self.end(
                    f"rank {rank} of {self.size} has sent no heartbeat for {HEARTBEAT_TIMEOUT:.0f} seconds; "
                    f"{RESUME_HINT}",
                    1,
                )

    def end(self, line: str, code: int) -> None:
        """End this process, and mark the run as failed. Print the message if no other process has failed before."""
        mine = f"{self.rank} {time.time()}"
        first = True
        with suppress(RuntimeError):
            first = self.store.compare_set(FAILED, "", mine).decode() == mine
        self.quit(line if first else "", code)

    def quit(self, line: str, code: int) -> None:
        """End this process at once, even while its main thread is blocked; print the message unless it is empty."""
        if line:
            print(f"error: {line}", file=sys.__stderr__, flush=True)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


RESUME_HINT = "the same command goes on from the last finished epoch"


@contextmanager
def main_process_first(world: World) -> Iterator[None]:
    """Context that the main process runs before all others, for files that it creates and all read."""
    if not world.is_main:
        world.barrier()
    yield
    if world.is_main:
        world.barrier()


def check_same(world: World, what: Mapping[str, Any], hint: str) -> None:
    """Check that all processes hold the same values.

    Args:
        world: The group of processes.
        what: Values by name.
        hint: Advice for the error message.

    Raises:
        UserError: If not; the message names the first value that differs, and the rank.
    """
    answers = [text.split("\n") for text in world.gather_text("\n".join(repr(value) for value in what.values()))]
    for name, values in zip(what, zip(*answers, strict=True), strict=True):
        for rank, value in enumerate(values):
            if value != values[0]:
                raise UserError(f"{name} is {values[0][:80]} on rank 0 and {value[:80]} on rank {rank}; {hint}")
