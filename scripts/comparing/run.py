"""Execute many runs with a progress bar: stopped runs are resumed, and failed ones do not stop the others."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from types import FrameType
from typing import Any, TextIO

from tqdm import tqdm

from coft.core.files import ensure_folder
from scripts.launch import ROOT
from scripts.paths import display_path

from .plan import Run, arguments_with_phase1

LOG = "run.log"
POLL = 0.2  # seconds
GRACE = 20.0  # seconds that an interrupted run has to end by itself
BAR = "{n_fmt} of {total_fmt} runs {bar} {elapsed}{postfix}"
TRAIN = (sys.executable, str(ROOT / "train.py"))


def do_runs(
    runs: Sequence[Run], args: Namespace, command: Sequence[str] = TRAIN, others: Sequence[Run] = ()
) -> dict[Run, str]:
    """Execute the runs that are not finished, once per folder, seed by seed.

    Args:
        runs: Planned runs. Several rows may share a run, and measure different things.
        args: Flags of the command: jobs, devices, no_run, output.
        command: Command line that runs a trainer, to which `Run.arguments` are appended.
        others: Runs whose results are known from a list. Phase I may be taken from them if their folder exists.

    Returns:
        Error messages of the runs that failed.

    Raises:
        UserError: If the output folder cannot be made.
    """
    unique, todo, seconds = split_finished(runs)
    elsewhere = f"; known from elsewhere: {len(others)}" if others else ""
    print(f"runs: {len(unique)}, finished: {len(unique) - len(todo)}{elsewhere}", file=sys.stderr)
    if args.no_run or not todo:
        return {}
    ensure_folder(args.output, "--output")
    seconds |= {run: summary["seconds"] for run in others if (summary := run.summary())}
    return run_all(todo, jobs=args.jobs, devices=args.devices, command=command, finished=seconds)


def split_finished(runs: Sequence[Run]) -> tuple[list[Run], list[Run], dict[Run, float]]:
    """Split runs into finished and unfinished ones.

    Args:
        runs: Planned runs. A run that several rows share counts once.

    Returns:
        All runs, the unfinished ones ordered by seed, and the seconds of the finished ones.
    """
    first = {run.folder: run for run in reversed(runs)}
    unique = [run for run in runs if first[run.folder] is run]
    seconds = {run: summary["seconds"] for run in unique if (summary := run.summary())}
    seeds = list(dict.fromkeys(run.seed for run in unique))
    return unique, sorted((run for run in unique if run not in seconds), key=lambda run: seeds.index(run.seed)), seconds


def run_all(
    runs: Sequence[Run],
    *,
    jobs: int = 1,
    devices: Sequence[str] = (),
    command: Sequence[str] = TRAIN,
    finished: Mapping[Run, float] | None = None,
) -> dict[Run, str]:
    """Execute unfinished runs.

    Args:
        runs: Unfinished runs, in the order of execution.
        jobs: Number of concurrent runs; they share the threads of OMP_NUM_THREADS, or of all cores.
        devices: GPUs, with one run at a time on each; their number replaces `jobs`.
        command: Command line that runs a trainer, to which `Run.arguments` are appended.
        finished: Finished runs with their seconds; the former lend their Phase I, the latter serve the time estimate.

    Returns:
        Error messages of the runs that failed.

    Raises:
        KeyboardInterrupt: On SIGINT, SIGTERM or SIGHUP, after the active runs are stopped.
    """
    waiting, active, failures = deque(dict.fromkeys(runs)), list[Job](), dict[Run, str]()
    places = deque[str | None](devices) or deque([None] * jobs)
    jobs = len(places)
    lenders, progress = [*(finished or {}), *runs], Progress(list(waiting), finished or {}, jobs)
    with stoppable():
        try:
            while waiting or active:
                for _ in range(min(len(waiting), len(places))):
                    run = waiting.popleft()
                    try:
                        job = _start(run, command, places[0], jobs, lenders)
                    except BlockingIOError:
                        waiting.append(run)  # another process is executing it
                        continue
                    if job:
                        active.append(job)
                        places.popleft()
                    else:
                        progress.finished(run, None, "finished by another process")
                for job in [job for job in active if job.process.poll() is not None]:
                    active.remove(job)
                    places.append(job.device)
                    if error := _finish(job, progress):
                        failures[job.run] = error
                progress.show([job.run for job in active])
                time.sleep(POLL)
        finally:
            stop([job.process for job in active])
            progress.bar.close()
    return failures


class Progress:
    """Progress bar over all runs, and a line after each.

    Args:
        runs: Runs to do.
        finished: Seconds of runs that are finished.
        jobs: Number of concurrent runs.
    """

    def __init__(self, runs: Sequence[Run], finished: Mapping[Run, float], jobs: int = 1) -> None:
        self.left, self.seconds, self.jobs = list(runs), dict(finished), jobs
        self.bar = tqdm(total=len(runs), bar_format=BAR, disable=None, dynamic_ncols=True)

    def show(self, active: Sequence[Run]) -> None:
        """Draw the bar with the titles of the active runs."""
        self.bar.set_postfix_str("; ".join(run.title for run in active) or "waiting for another process")

    def finished(self, run: Run, seconds: float | None, note: str) -> None:
        """Count a run that ended, and print a line about it; `seconds` is None if it failed."""
        self.left.remove(run)
        if seconds is not None:
            self.seconds[run] = seconds
        line = f"[{self.bar.total - len(self.left)} of {self.bar.total}] {run.title}: {note}"
        if self.left and self.seconds:
            line += f" (about {tqdm.format_interval(remaining(self.left, self.seconds, self.jobs))} to go)"
        tqdm.write(line, file=sys.stderr)
        self.bar.update()


def remaining(runs: Sequence[Run], finished: Mapping[Run, float], jobs: int) -> float:
    """Estimate the seconds until all runs have ended; each takes the mean of the most similar finished ones.

    Args:
        runs: Runs that are left.
        finished: Seconds of finished runs, at least one.
        jobs: Number of concurrent runs.
    """
    seconds: dict[Any, list[float]] = defaultdict(list)
    for run, took in finished.items():
        for likeness in _likenesses(run):
            seconds[likeness].append(took)
    expected = [mean(next(seconds[at] for at in _likenesses(run) if at in seconds)) for run in runs]
    return max(sum(expected) / jobs, *expected)


def _likenesses(run: Run) -> tuple[Any, ...]:
    """Return keys that runs of about the same length share, the most specific first."""
    trainer = run.method.trainer
    return (trainer, run.method.shots, run.dataset, run.backbone), trainer, None


class Job:
    """An active run. Its process holds a lock on its log, which outlives this process."""

    def __init__(self, run: Run, log: TextIO, words: Sequence[str], jobs: int = 1, device: str | None = None) -> None:
        self.run, self.device = run, device
        self.log = display_path(Path(log.name))
        self.written = self.log.open("rb")  # for reading, and still readable if the folder is removed
        self.written.seek(0, os.SEEK_END)
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            words,
            cwd=ROOT,
            env=child_environment(jobs, device),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C on the terminal reaches it once only, through this process
        )

    def error(self) -> str | None:
        """Return the reason why the ended run failed, in one line; None if it succeeded."""
        code = self.process.returncode
        if code < 0:
            return f"killed by {signal.Signals(-code).name}; see {self.log}"
        if code == 0:
            return None if self.run.summary() else f"left no summary.json with the config it was given; see {self.log}"
        lines = [line.strip() for line in self.written.read().decode(errors="replace").splitlines()]
        lines = [line for line in lines if line]
        errors = [line for line in lines if line.startswith("error: ")] or lines or [f"exit code {code}"]
        return f"{errors[-1].removeprefix('error: ')}; see {self.log}"


def _start(run: Run, command: Sequence[str], device: str | None, jobs: int, lenders: Sequence[Run]) -> Job | None:
    """Start a run with its log locked; None if another process has finished it since it was planned.

    The run may take Phase I from one of the lenders.

    Raises:
        BlockingIOError: If another process is executing the run.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / LOG).open("a", encoding="utf-8") as log:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None if run.summary() else Job(run, log, [*command, *arguments_with_phase1(run, lenders)], jobs, device)


def _finish(job: Job, progress: Progress) -> str | None:
    """Report how a run ended. Returns the error message if it failed."""
    error, seconds = job.error(), time.monotonic() - job.started
    job.written.close()
    progress.finished(job.run, None if error else seconds, f"failed: {error}" if error else f"{seconds:.0f} s")
    return error


def cores() -> int:
    """Return the number of cores that this process may use; macOS does not tell, and all are counted."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def child_environment(jobs: int, device: str | None = None) -> dict[str, str]:
    """Build the environment of a run: its GPU, its share of the threads, and no progress bars in its log."""
    gpu = {"CUDA_VISIBLE_DEVICES": device, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if device else {}  # as in nvidia-smi
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # one number per nesting level
    threads = int(first) if re.fullmatch("[1-9][0-9]{0,5}", first) else cores()
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(max(1, threads // jobs)),
        "PYTHONUNBUFFERED": "1",
        "DASSL_PROGRESS": "0",
        **gpu,
    }


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Interrupt processes, and kill those that do not end; killed runs can also be resumed from their last epoch."""
    # In the background of a shell script SIGINT is ignored, by this process and its children.
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
    """Context in which SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
