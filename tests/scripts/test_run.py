"""Execution of runs: failures, signals, resumption, locks and progress, with a toy in place of train.py."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.comparing.methods import Method
from scripts.comparing.plan import Run
from scripts.comparing.run import LOG, child_environment, remaining, run_all

from .toy_runs import starts, toy_command, toy_run


def test_failed_run_does_not_stop_the_others(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first, failing, last = (
        toy_run(tmp_path, name, behaviour) for name, behaviour in (("a", "works"), ("b", "fails"), ("c", "works"))
    )
    failures = run_all([first, failing, last], command=toy_command(tmp_path))
    assert list(failures) == [failing] and failures[failing].startswith("simulated failure; see ")
    assert first.summary() and last.summary() and not failing.summary()
    lines = capfd.readouterr().err
    assert "[2 of 3] b on toy, RN50, seed 1: failed: simulated failure" in lines and "[3 of 3]" in lines
    assert lines.count(" to go)\n") == 2


def test_run_with_another_config_has_failed(tmp_path: Path) -> None:
    run = toy_run(tmp_path, "a")
    other = type(run)(run.method, run.dataset, run.backbone, 1, run.arguments, run.folder, {"SEED": 2})
    assert "left no summary.json with the config" in run_all([other], command=toy_command(tmp_path))[other]


def test_crash_is_reported_with_its_signal(tmp_path: Path) -> None:
    run = toy_run(tmp_path, "a")
    command = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    assert run_all([run], command=command)[run].startswith("killed by SIGKILL; see ")


def test_jobs_run_in_parallel_and_share_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    runs = [toy_run(tmp_path / "runs", name, "together") for name in "ab"]  # each waits for the other
    assert run_all(runs, jobs=2, command=toy_command(tmp_path)) == {}
    assert [starts(run) for run in runs] == [["2"], ["2"]]
    assert child_environment(9)["OMP_NUM_THREADS"] == "1"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert child_environment(1)["OMP_NUM_THREADS"] == str(len(os.sched_getaffinity(0)))


def test_a_gpu_has_one_run_at_a_time(tmp_path: Path) -> None:
    runs = [toy_run(tmp_path / "runs", name, "together") for name in "ab"]  # each waits for the other
    assert run_all(runs, devices=["4", "7"], command=toy_command(tmp_path)) == {}
    assert sorted((run.folder / "device").read_text() for run in runs) == ["4", "7"]
    others = [toy_run(tmp_path / "runs", name) for name in "cd"]
    assert run_all(others, devices=["4"], command=toy_command(tmp_path)) == {}
    assert [(run.folder / "device").read_text() for run in others] == ["4", "4"]


def session(folder: Path, ignored: bool) -> None:
    """Do three runs, of which the second hangs, in a session like that of a shell script."""
    os.setsid()
    # always set: tests in the background of a shell inherit an ignored SIGINT
    signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    try:
        run_all(
            [toy_run(folder, "a"), toy_run(folder, "b", "hangs"), toy_run(folder, "c")], command=toy_command(folder)
        )
    except KeyboardInterrupt:
        sys.exit(130)


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"no {path.name}"
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "ignored"), [("SIGTERM", False), ("SIGINT", False), ("SIGTERM", True)])
def test_stopped_session_stops_its_run_and_can_be_resumed(tmp_path: Path, number: str, ignored: bool) -> None:
    # a fork saves the import of slow modules
    process = multiprocessing.get_context("fork").Process(target=session, args=(tmp_path, ignored))
    process.start()
    assert process.pid
    wait_for(tmp_path / "b" / "half")
    time.sleep(0.1)  # until the toy handles signals
    os.kill(process.pid, getattr(signal, number))
    process.join(15)
    assert process.exitcode == 130
    a, b, c = (toy_run(tmp_path, name, how) for name, how in (("a", "works"), ("b", "hangs"), ("c", "works")))
    assert a.summary() and not b.summary() and starts(c) == []
    assert (b.folder / "interrupted").exists() == (not ignored)
    assert run_all([b, c], command=toy_command(tmp_path)) == {}  # the stopped run has released its lock
    assert b.summary() and c.summary() and len(starts(a)) == 1 and len(starts(b)) == 2


def test_run_of_another_process_is_awaited(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """After SIGKILL the runs of a session continue."""
    run, free = toy_run(tmp_path, "a"), toy_run(tmp_path, "b")
    run.folder.mkdir()
    holder = f"""
import fcntl, os, subprocess, time
log = open({str(run.folder / LOG)!r}, "a")
fcntl.flock(log, fcntl.LOCK_EX)
print("locked", flush=True)
while not os.path.exists({str(free.folder / "summary.json")!r}):
    time.sleep(0.02)
subprocess.run({[*toy_command(tmp_path), *run.arguments]!r}, check=True)
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    other = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True, env=environment)
    assert other.stdout and other.stdout.readline() == "locked\n"
    assert run_all([run, free], command=toy_command(tmp_path)) == {}
    assert other.wait(10) == 0 and len(starts(run)) == 1
    assert "finished by another process" in capfd.readouterr().err


def test_log_is_appended_and_locked_only_during_a_run(tmp_path: Path) -> None:
    run = toy_run(tmp_path, "a", "fails")
    for _ in range(2):
        run_all([run], command=toy_command(tmp_path))
    assert (run.folder / LOG).read_text().count("simulated failure") == 2
    with (run.folder / LOG).open("a") as log:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert len(starts(run)) == 2


# ------------------------------------------------------------------ progress


def of(trainer: str, dataset: str, seed: int = 1) -> Run:
    return Run(Method(trainer, trainer), dataset, "embedded", seed, (), Path(), {})


def test_remaining_time_is_that_of_the_most_similar_runs() -> None:
    seconds = {of("CoFT", "digits"): 100.0, of("CoFT", "digits", 2): 200.0, of("CoFT", "icons"): 600.0}
    seconds[of("UPL", "digits")] = 20.0
    similar, same_trainer, other = of("CoFT", "digits", 3), of("CoFT", "emoji"), of("CoOp", "emoji")
    assert remaining([similar, same_trainer, other], seconds, 2) == pytest.approx((150 + 300 + 230) / 2)
    assert remaining([similar, same_trainer], seconds, 2) == 300
