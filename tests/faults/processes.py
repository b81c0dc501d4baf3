"""Runs as processes: stopped, killed, without room, two at once; and in surroundings that one is not used to."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from coft.core.errors import UserError

from .mutations import INPUTS
from .oracle import EITHER, FINE, Case, Wrong, check_outcome
from .scene import NOBODY, ROOT, Scene

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
MOMENTS = ("config.yaml", "metrics.csv", "resume.pth.tar", "peer_a/model.pth.tar-1")  # when these files are there
ROOMS = (0, 1000, 30_000, 1_000_000, 4_000_000)  # bytes of the largest file that can be written
LONG = ("TRAINER.COFT.PHASE1.EPOCHS", "2", "TRAINER.COFT.PHASE2.EPOCHS", "2")


def refusal_of(process: subprocess.Popen[str]) -> str:
    """How a process ends: the line of its refusal; empty if it has done what it should. See `check_outcome`."""
    _, errors = process.communicate(timeout=300)
    try:
        check_outcome(process.returncode, errors or "")
    except UserError as error:
        return error.line
    return ""


def finish(scene: Scene) -> None:
    """Give the command again: it ends, with the weights of a run that nobody stopped."""
    whole = scene.shared / "whole"
    runs = [scene.process(settings=LONG)]
    if not (whole / "summary.json").is_file():
        runs.append(scene.process(out=whole, settings=LONG))
    if lines := list(filter(None, map(refusal_of, runs))):
        raise Wrong(f"the same command does not go on: {lines[0]}")
    weights = [folder / "model" / "model.safetensors" for folder in (whole, scene.place / "out")]
    if weights[0].read_bytes() != weights[1].read_bytes():
        raise Wrong("the weights are others than those of a run that nobody stopped")


def begin(scene: Scene, moment: str) -> subprocess.Popen[str]:
    """Begin a run, and wait until a file of it is there."""
    process = scene.process(settings=LONG)
    while not (scene.place / "out" / moment).exists() and process.poll() is None:
        time.sleep(0.01)
    return process


def stopped(scene: Scene, number: signal.Signals, moment: str) -> None:
    """Stop a run once a file is there."""
    process = begin(scene, moment)
    process.send_signal(number)
    if "Traceback" in (errors := process.communicate(timeout=300)[1]):
        raise Wrong(f"a traceback: {errors.splitlines()[-1]}")
    finish(scene)


def no_room(scene: Scene, size: int) -> None:
    """Run where files cannot be larger, then where they can."""
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
    line = refusal_of(scene.process(settings=LONG, started={"preexec_fn": limit}))
    if "make room" not in line and "disk" not in line:
        raise Wrong(f"it says of a full disk: {line!r}")
    finish(scene)


def two(scene: Scene, moment: str, settings: tuple[str, ...] = ()) -> None:
    """Run two processes in one folder: one does its work, and the other says so, or finds all done."""
    first = begin(scene, moment) if moment else scene.process(settings=LONG)
    lines = [refusal_of(process) for process in (scene.process(settings=(*LONG, *settings)), first)]
    if all(lines) or (moment and lines[1]):
        raise Wrong(f"neither goes on: {lines}")
    if wrong := [line for line in lines if line and "in use by another" not in line and "another exp" not in line]:
        raise Wrong(wrong[0])
    finish(scene)


def disturbed() -> Iterator[Case]:
    """Cases of the category processes."""
    runs: dict[str, Callable[[Scene], None]] = {
        **{f"{n.name} once {at} is there": partial(stopped, number=n, moment=at) for n in SIGNALS for at in MOMENTS},
        **{f"files of {size} bytes at most": partial(no_room, size=size) for size in ROOMS},
        "two at once, the same command": partial(two, moment="config.yaml"),
        "two at once, other settings": partial(two, moment="config.yaml", settings=("OPTIM.LR", "0.02")),
        "two started together": partial(two, moment=""),
    }
    for name, run in runs.items():
        yield Case("processes", name, run, FINE, seconds=400)


def close_streams() -> None:
    os.closerange(0, 3)


STARTED: dict[str, dict[str, Any]] = {  # options of Popen
    "a daemon, without streams": {"preexec_fn": close_streams, "stdout": None, "stderr": None},
    "forty open files": {"preexec_fn": partial(resource.setrlimit, resource.RLIMIT_NOFILE, (40, 40))},
    "a umask of 0777": {"umask": 0o777},
}


def run_in(
    scene: Scene, environment: Mapping[str, str | None] | None = None, out: Path | None = None, **options: Any
) -> bytes:
    """Do a run as a process; see `Scene.process`. Returns its predictions."""
    folder = out or scene.place / "out"
    if line := refusal_of(scene.process(out=folder, environment=environment, **options)):
        raise UserError(line)
    return (folder / "predictions.csv").read_bytes()


def foreign_names(scene: Scene) -> None:
    """Names that ASCII does not have, under such a locale."""
    folder, out = scene.place / "füße", scene.place / "Ausgänge"
    folder.mkdir()
    for path in scene.images.iterdir():
        (folder / f"犬 {path.name}").write_bytes(path.read_bytes())
    names = scene.file("names.txt", "café\n犬\n")
    passed = Path(os.fsencode(folder).decode("ascii", "surrogateescape"))  # as scripts pass it then
    ascii = INPUTS["environments"]["LANG=C, no UTF-8 mode"]
    if "犬 0.png".encode() not in run_in(scene, ascii, out, images=passed, classes=str(names)):
        raise Wrong("predictions.csv lacks a file under its own name")


def full_reader(scene: Scene) -> None:
    """Output that goes to `head -1`."""
    process = scene.process()
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    if process.wait(timeout=110) or "Traceback" in errors or "Exception" in errors:
        raise Wrong(f"exit code {process.returncode}: {errors[-200:]}")


def nobody(scene: Scene) -> None:
    """A user who owns nothing but the output, and has no home."""
    above = (*ROOT.parents, *Path(sys.executable).resolve().parents)
    if os.getuid() or not all(place.stat().st_mode & 0o005 == 0o005 for place in above):
        return  # only root can be somebody else, who may see the checkout and Python
    (scene.place / "out").mkdir()
    os.chown(scene.place / "out", NOBODY, NOBODY)
    for place in (scene.place, scene.shared):
        place.chmod(0o755)
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    run_in(scene, {"HOME": "/nonexistent", "XDG_CACHE_HOME": None}, started=user)


def other_device(scene: Scene) -> None:
    """Output in memory, where no file of the disk can be renamed to."""
    if Path("/dev/shm").is_dir():
        out = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="coft-faults-"))
        try:
            run_in(scene, out=out)
        finally:
            shutil.rmtree(out)


def surroundings() -> Iterator[Case]:
    """Cases of the category environments."""
    for name, variables in INPUTS["environments"].items():
        yield Case("environments", name, partial(run_in, environment=variables), FINE, seconds=120)
    for name, started in STARTED.items():
        right = FINE if "daemon" in name else EITHER
        yield Case("environments", name, partial(run_in, started=started), right, seconds=120)
    for run in (foreign_names, full_reader, nobody, other_device):
        yield Case("environments", (run.__doc__ or "").rstrip("."), run, FINE, seconds=120)
