"""Runs trainers many times, with a bar: goes on where a run was stopped, and past those that fail."""

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
from coft.engine.course import time_left
from scripts.launch import ROOT
from scripts.paths import shown

from .plan import Run, arguments_with_phase1

LOG = "run.log"
POLL = 0.2  # seconds
GRACE = 20.0  # seconds that an interrupted run has to end by itself
TAIL = 4096  # bytes of a log that are looked at for its progress
TRAIN = (sys.executable, str(ROOT / "train.py"))
PERCENT = re.compile(rb": (\d+) %")  # of a run, in its lines of progress
UNKNOWN = 60.0  # seconds that a run is taken for while none says how far it is
BAR = "{desc} {percentage:3.0f} % {bar}{postfix}"


def do_runs(
    runs: Sequence[Run], args: Namespace, command: Sequence[str] = TRAIN, others: Sequence[Run] = ()
) -> dict[Run, str]:
    """Do those of some runs that are not finished, each folder's once, one seed after the other.

    Args:
        runs: Rows may share a run, and differ in what they measure.
        args: Flags of the command: jobs, no_run, output.
        command: What runs a trainer, in place of `python train.py`.
        others: Runs whose results come from elsewhere. Phase I may be taken from them where their folder is here.

    Returns:
        Errors of the runs that failed.

    Raises:
        UserError: If the output folder cannot be made.
    """
    first = {run.folder: run for run in reversed(runs)}
    unique = [run for run in runs if first[run.folder] is run]
    summaries = {run: run.summary() for run in (*unique, *others)}
    seeds = list(dict.fromkeys(run.seed for run in unique))
    todo = sorted((run for run in unique if summaries[run] is None), key=lambda run: seeds.index(run.seed))
    elsewhere = f"; known from elsewhere: {len(others)}" if others else ""
    print(f"runs: {len(unique)}, finished: {len(unique) - len(todo)}{elsewhere}", file=sys.stderr)
    if args.no_run or not todo:
        return {}
    ensure_folder(args.output, "--output")
    seconds = {run: summary["seconds"] for run, summary in summaries.items() if summary}
    return run_all(todo, jobs=args.jobs, command=command, finished=seconds)


def run_all(
    runs: Sequence[Run], *, jobs: int = 1, command: Sequence[str] = TRAIN, finished: Mapping[Run, float] | None = None
) -> dict[Run, str]:
    """Run what is not finished.

    Args:
        runs: Unfinished runs, in the order they are to be done.
        jobs: Number of runs at the same time; they share the threads of OMP_NUM_THREADS, or of all cores.
        command: What `Run.arguments` are appended to.
        finished: Finished runs, from which others may take Phase I, and their seconds, to estimate the others.

    Returns:
        Errors of the runs that failed.

    Raises:
        KeyboardInterrupt: On SIGINT, SIGTERM or SIGHUP, after the runs under way were stopped.
    """
    waiting, active, failures = deque(dict.fromkeys(runs)), list[Job](), dict[Run, str]()
    lenders, progress = [*(finished or {}), *runs], Progress(list(waiting), finished or {}, jobs)
    with stoppable():
        try:
            while waiting or active:
                for _ in range(min(len(waiting), jobs - len(active))):
                    run = waiting.popleft()
                    try:
                        job = _start(run, command, jobs, lenders)
                    except BlockingIOError:  # another process is at it
                        waiting.append(run)
                        continue
                    if job:
                        active.append(job)
                    else:
                        progress.finished(run, None, "finished by another process")
                for job in [job for job in active if job.process.poll() is not None]:
                    active.remove(job)
                    if error := _finish(job, progress):
                        failures[job.run] = error
                progress.show({job.run: (job.share_done(), time.monotonic() - job.started) for job in active})
                time.sleep(POLL)
        finally:
            stop([job.process for job in active])
            progress.bar.close()
    return failures


class Job:
    """A run under way. Its log is locked as long as its process lives, whatever becomes of ours."""

    def __init__(self, run: Run, log: TextIO, words: Sequence[str], jobs: int = 1) -> None:
        self.run = run
        self.log = shown(Path(log.name))
        self.written = self.log.open("rb")  # for reading, and still readable if the folder is removed
        self.offset = os.fstat(self.written.fileno()).st_size
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            words,
            cwd=ROOT,
            env=child_environment(jobs),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C on the terminal comes to it once, through us
        )

    def share_done(self) -> float:
        """Share of the run that its log says is done."""
        percents = PERCENT.findall(self._read(max(self.offset, os.fstat(self.written.fileno()).st_size - TAIL)))
        return int(percents[-1]) / 100 if percents else 0.0

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


def _start(run: Run, command: Sequence[str], jobs: int, lenders: Sequence[Run]) -> Job | None:
    """Start a run, with its log locked; None if another process has finished it since it was planned.

    It may take Phase I from one of the lenders.

    Raises:
        BlockingIOError: If another process is at it.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / LOG).open("a", encoding="utf-8") as log:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None if run.summary() else Job(run, log, [*command, *arguments_with_phase1(run, lenders)], jobs)


def _finish(job: Job, progress: Progress) -> str | None:
    """Note how a run ended. Returns its error, if it failed."""
    error, seconds = job.error(), time.monotonic() - job.started
    job.written.close()
    progress.finished(job.run, None if error else seconds, f"failed: {error}" if error else f"{seconds:.0f} s")
    return error


def child_environment(jobs: int) -> dict[str, str]:
    """Environment of a run: its share of the threads, no bars in its log."""
    threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(max(1, threads // jobs)),
        "PYTHONUNBUFFERED": "1",
        "DASSL_PROGRESS": "0",
    }


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


# ---------------------------------------------------------------- progress


class Progress:
    """A bar over all runs, measured in the seconds that they are expected to take.

    Args:
        runs: What is to be done.
        finished: Seconds that other runs took.
        jobs: Number of runs at the same time.
    """

    def __init__(self, runs: Sequence[Run], finished: Mapping[Run, float], jobs: int = 1) -> None:
        self.left, self.seconds, self.jobs = list(runs), dict(finished), jobs
        self.count, self.done = len(self.left), 0.0
        self.expected = expected_seconds(self.left, self.seconds)
        self.under_way, self.seen = dict[Run, float](), dict[Run, tuple[float, float]]()
        self.bar = tqdm(total=1.0, bar_format=BAR, disable=None if runs else True, dynamic_ncols=True)

    def show(self, active: Mapping[Run, tuple[float, float]]) -> None:
        """Draw the bar; `active` has of each run under way the share that is done and the seconds since its start."""
        for run, (share, seconds) in active.items():
            last, _ = self.seen.get(run, (0.0, 0.0))
            if share > last:  # it has just said so
                self.seen[run] = share, seconds
        guessed = {run: seconds / share for run, (share, seconds) in self.seen.items()}
        self.expected = expected_seconds(self.left, {**guessed, **self.seconds})
        self.expected |= {run: seconds for run, seconds in guessed.items() if run in self.expected}
        self.under_way = {run: share for run, (share, _) in active.items()}
        self.bar.total = self.done + sum(self.expected.values())
        self.bar.n = self.done + sum(share * self.expected[run] for run, share in self.under_way.items())
        left = self.remaining() if guessed or self.seconds else None
        self.bar.set_description_str(
            f"{self.count - len(self.left)} of {self.count} runs{time_left(left)}", refresh=False
        )
        self.bar.set_postfix_str("; ".join(run.title for run in active) or "waiting for another process", refresh=True)

    def finished(self, run: Run, seconds: float | None, note: str) -> None:
        """Count a run that ended, and say so in a line; `seconds` unless it failed."""
        self.done += self.expected[run]
        self.left.remove(run)
        self.under_way.pop(run, None), self.seen.pop(run, None)
        if seconds is not None:
            self.seconds[run] = seconds
        self.expected = expected_seconds(self.left, self.seconds)
        line = f"[{self.count - len(self.left)} of {self.count}] {run.title}: {note}"
        if self.left:
            line += f" (about {tqdm.format_interval(self.remaining())} to go)"
        tqdm.write(line, file=sys.stderr)

    def remaining(self) -> float:
        """Seconds until all runs have ended, without those that those under way have taken already."""
        left = {run: seconds * (1 - self.under_way.get(run, 0.0)) for run, seconds in self.expected.items()}
        return max(sum(left.values()) / self.jobs, max(left.values(), default=0.0))


def expected_seconds(runs: Sequence[Run], finished: Mapping[Run, float]) -> dict[Run, float]:
    """Seconds that each run will take: the mean over the finished runs that are most like it."""
    seconds: dict[Any, list[float]] = defaultdict(list)
    for run, took in finished.items():
        for likeness in _likenesses(run):
            seconds[likeness].append(took)
    return {run: mean(next((seconds[at] for at in _likenesses(run) if at in seconds), [UNKNOWN])) for run in runs}


def _likenesses(run: Run) -> tuple[Any, ...]:
    """What runs of about the same length share, the nearest first."""
    trainer = run.method.trainer
    return (trainer, run.method.shots, run.dataset, run.backbone), trainer, None
