"""Runs train.py many times: goes on where a run was stopped, and past those that fail."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TextIO

from scripts.launch import ROOT
from scripts.paths import shown

from .forks import with_phase1_of
from .plan import Run
from .progress import Progress

LOG = "run.log"
POLL = 0.2  # seconds
GRACE = 20.0  # seconds that an interrupted run has to end by itself
TAIL = 4096  # bytes of a log that are looked at for the epoch
TRAIN = (sys.executable, str(ROOT / "train.py"))
EPOCH = re.compile(rb"epoch \[(\d+)/(\d+)\] batch \[(\d+)/(\d+)\]")


class Job:
    """A run under way. Its log is locked as long as its process lives, whatever becomes of ours."""

    def __init__(
        self, run: Run, log: TextIO, command: Sequence[str], environment: Mapping[str, str], arguments: Sequence[str]
    ) -> None:
        self.run = run
        self.log = shown(Path(log.name))
        self.written = self.log.open("rb")  # for reading, and still readable if the folder is removed
        self.offset = os.fstat(self.written.fileno()).st_size
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C on the terminal comes to it once, through us
        )

    def share_done(self) -> float:
        """Share of the epochs that its log says are done."""
        found = EPOCH.findall(self._read(max(self.offset, os.fstat(self.written.fileno()).st_size - TAIL)))
        if not found:
            return 0.0
        epoch, epochs, batch, batches = map(int, found[-1])
        return (epoch - 1 + batch / batches) / epochs

    def _read(self, start: int) -> bytes:
        self.written.seek(start)
        return self.written.read()

    def error(self) -> str | None:
        """Why the ended run failed, in one line; None if it did not."""
        code = self.process.returncode
        if code < 0:
            return f"killed by {signal.Signals(-code).name}; see {self.log}"
        if code == 0:
            return None if self.run.summary() else f"left no summary.json with the config it was given; see {self.log}"
        lines = [line.strip() for line in self._read(self.offset).decode(errors="replace").splitlines()]
        lines = [line for line in lines if line]
        errors = [line for line in lines if line.startswith("error: ")] or lines or [f"exit code {code}"]
        return f"{errors[-1].removeprefix('error: ')}; see {self.log}"


def run_all(
    runs: Sequence[Run], *, jobs: int = 1, command: Sequence[str] = TRAIN, known: Mapping[Run, float] | None = None
) -> dict[Run, str]:
    """Run what is not finished.

    Args:
        runs: Unfinished runs, in the order they are to be done.
        jobs: Number of runs at the same time; they share the threads of OMP_NUM_THREADS, or of all cores.
        command: What `Run.arguments` are appended to.
        known: Finished runs, from which others may take Phase I, and their seconds, to estimate the others.

    Returns:
        Errors of the runs that failed.

    Raises:
        KeyboardInterrupt: On SIGINT, SIGTERM or SIGHUP, after the runs under way were stopped.
    """
    waiting, active, failures = deque(dict.fromkeys(runs)), list[Job](), dict[Run, str]()
    environment = child_environment(jobs)
    with stoppable(), Progress(list(waiting), known or {}, jobs) as progress:
        try:
            while waiting or active:
                for _ in range(min(len(waiting), jobs - len(active))):
                    start_next(waiting, active, progress, command, environment, [*(known or {}), *runs])
                for job in [job for job in active if job.process.poll() is not None]:
                    active.remove(job)
                    finish(job, progress, failures)
                progress.show({job.run: job.share_done() for job in active})
                time.sleep(POLL)
        finally:
            stop([job.process for job in active])
    return failures


def child_environment(jobs: int) -> dict[str, str]:
    """Environment of a run: its share of the threads, no bars in its log."""
    threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(max(1, threads // jobs)),
        "PYTHONUNBUFFERED": "1",
        "DASSL_PROGRESS": "0",
    }


def start_next(
    waiting: deque[Run],
    active: list[Job],
    progress: Progress,
    command: Sequence[str],
    environment: Mapping[str, str],
    lenders: Sequence[Run],
) -> None:
    """Start the first waiting run, or put it last if another process is at it; `lenders` may have its Phase I."""
    run = waiting.popleft()
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / LOG).open("a", encoding="utf-8") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting.append(run)
            return
        if run.summary():  # finished by another process since it was planned
            progress.finished(run, None, "finished by another process")
            return
        active.append(Job(run, log, command, environment, with_phase1_of(run, lenders)))


def finish(job: Job, progress: Progress, failures: dict[Run, str]) -> None:
    """Note how a run ended."""
    error, seconds = job.error(), time.monotonic() - job.started
    if error:
        failures[job.run] = error
    job.written.close()
    progress.finished(job.run, None if error else seconds, f"failed: {error}" if error else f"{seconds:.0f} s")


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Interrupt processes, and kill those that do not heed it; a killed run goes on from its last epoch, too."""
    # In the background of a shell script SIGINT is ignored, by us and by what we start.
    number = signal.SIGTERM if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else signal.SIGINT
    for process in processes:
        process.send_signal(number)
    deadline = time.monotonic() + GRACE
    try:
        for process in processes:
            process.wait(max(0.0, deadline - time.monotonic()))
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with its data loaders
                process.wait()


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP do what Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
