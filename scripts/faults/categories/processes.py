"""Processes that are stopped, killed, without room, or two at once: the same command goes on to the same bits."""

from __future__ import annotations

import hashlib
import resource
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import torch

from coft.core.errors import UserError

from ..case import Case, Right, Wrong
from ..scene import Scene

CATEGORY = "processes"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
MOMENTS = ("config.yaml", "metrics.csv", "resume.pth.tar", "peer_a/model.pth.tar-1")  # when these files are there
LONG = ("TRAINER.COFT.PHASE1.EPOCHS", "2", "TRAINER.COFT.PHASE2.EPOCHS", "2")
PATIENCE = 120.0


def cases(quick: bool) -> list[Case]:
    """All cases; with `quick`, none: each takes several processes."""
    if quick:
        return []
    found = [
        Case(
            CATEGORY,
            f"{own.name} once {moment} is there",
            partial(stopped, number=own, moment=moment),
            Right.FINE,
            seconds=400,
        )
        for own in SIGNALS
        for moment in MOMENTS
    ]
    found += [
        Case(CATEGORY, f"files of {size} bytes at most", partial(no_room, size=size), Right.FINE, seconds=400)
        for size in (0, 1000, 30_000, 1_000_000, 4_000_000)
    ]
    return [
        *found,
        Case(CATEGORY, "two at once, the same command", partial(both, settings=()), Right.FINE, seconds=400),
        Case(CATEGORY, "two started together", together, Right.FINE, seconds=400),
        Case(
            CATEGORY,
            "two at once, other settings",
            partial(both, settings=("OPTIM.LR", "0.02")),
            Right.FINE,
            seconds=400,
        ),
    ]


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code of a process, and the last line of its errors."""
    _, errors = process.communicate(timeout=300)
    if "Traceback" in errors:
        raise Wrong(f"a traceback: {errors.strip().splitlines()[-1]}")
    return process.returncode, (errors.strip().splitlines() or [""])[-1]


def digest(out: Path) -> str:
    """Hash of all weights that a run has trained."""
    found = hashlib.sha256()
    for path in sorted(out.glob("peer_*/model.pth.tar-*"))[-1:] + sorted(out.glob("peer_a/model.pth.tar-*"))[-1:]:
        for value in torch.load(path, weights_only=True)["state_dict"].values():
            if torch.is_tensor(value):
                found.update(value.contiguous().numpy().tobytes())
    return found.hexdigest()


def expected(scene: Scene) -> str:
    """What a run that nobody stops trains."""
    out = scene.shared / "whole"
    if not (out / "summary.json").is_file():
        code, line = ended(scene.process("--output-dir", str(out), settings=LONG))
        if code:
            raise UserError(line)
    return digest(out)


def finished(scene: Scene) -> None:
    """Give the command again: it ends, with the bits of a run that nobody stopped."""
    code, line = ended(scene.process(settings=LONG))
    if code:
        raise Wrong(f"the same command does not go on: {line}")
    if digest(scene.place / "out") != expected(scene):
        raise Wrong("the weights are others than those of a run that nobody stopped")


def stopped(scene: Scene, number: signal.Signals, moment: str) -> None:
    """Stop a run once a file is there."""
    expected(scene)
    process = scene.process(settings=LONG)
    until = time.monotonic() + PATIENCE
    while not (scene.place / "out" / moment).exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(number)
    ended(process)
    finished(scene)


def no_room(scene: Scene, size: int) -> None:
    """Run where files cannot be larger, then where they can."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    expected(scene)
    code, line = ended(scene.process(settings=LONG, started={"preexec_fn": limit}))
    if code != 2 or ("make room" not in line and "disk" not in line):
        raise Wrong(f"exit code {code}: {line}")
    finished(scene)


def both(scene: Scene, settings: tuple[str, ...]) -> None:
    """Run two processes in one folder: one goes on, and the other says so or finds all done."""
    expected(scene)
    first = scene.process(settings=LONG)
    while not (scene.place / "out" / "config.yaml").exists() and first.poll() is None:
        time.sleep(0.01)
    code, line = ended(scene.process(settings=(*LONG, *settings)))
    if code not in (0, 2) or (
        code == 2 and "in use by another process" not in line and "another experiment" not in line
    ):
        raise Wrong(f"exit code {code}: {line}")
    code, line = ended(first)
    if code:
        raise Wrong(f"the first process failed: {line}")
    finished(scene)


def together(scene: Scene) -> None:
    """Start two processes at the same time, in a folder that is not there: one runs, the other leaves its files."""
    expected(scene)
    endings = [ended(process) for process in [scene.process(settings=LONG), scene.process(settings=LONG)]]
    if sorted(code for code, _ in endings) not in ([0, 0], [0, 2]):
        raise Wrong(f"exit codes and lines: {endings}")
    if wrong := [line for code, line in endings if code and "in use by another process" not in line]:
        raise Wrong(wrong[0])
    finished(scene)
