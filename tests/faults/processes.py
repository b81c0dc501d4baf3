"""Runs as processes: stopped, killed, on a full disk, two at once; and in unusual environments."""

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
from .verdict import ACCEPTED, EITHER, Case, WrongResult, check_exit
from .workspace import NOBODY, ROOT, Workspace

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
STAGES = ("config.yaml", "metrics.csv", "resume.pth.tar", "peer_a/model.pth.tar-1")  # files that mark a stage of a run
FILE_SIZES = (0, 1000, 30_000, 1_000_000, 4_000_000)  # largest file that can be written, in bytes
SETTINGS = ("TRAINER.COFT.PHASE1.EPOCHS", "2", "TRAINER.COFT.PHASE2.EPOCHS", "2")


def wait(process: subprocess.Popen[str]) -> str:
    """Wait for a process, and check how it ends. Returns its error message, empty if it succeeded."""
    _, errors = process.communicate(timeout=300)
    try:
        check_exit(process.returncode, errors or "")
    except UserError as error:
        return error.line
    return ""


def check_resumption(workspace: Workspace) -> None:
    """Run the same command again: it must finish, with the weights of an uninterrupted run."""
    uninterrupted = workspace.shared / "uninterrupted"
    processes = [workspace.start(settings=SETTINGS)]
    if not (uninterrupted / "summary.json").is_file():
        processes.append(workspace.start(out=uninterrupted, settings=SETTINGS))
    if messages := list(filter(None, map(wait, processes))):
        raise WrongResult(f"the same command does not resume: {messages[0]}")
    weights = [folder / "model" / "model.safetensors" for folder in (uninterrupted, workspace.folder / "out")]
    if weights[0].read_bytes() != weights[1].read_bytes():
        raise WrongResult("the weights differ from those of an uninterrupted run")


def start_until(workspace: Workspace, stage: str) -> subprocess.Popen[str]:
    """Start a run, and wait until it has reached a stage."""
    process = workspace.start(settings=SETTINGS)
    while not (workspace.folder / "out" / stage).exists() and process.poll() is None:
        time.sleep(0.01)
    return process


def stop(workspace: Workspace, number: signal.Signals, stage: str) -> None:
    """Stop a run by a signal at a stage, then resume it."""
    process = start_until(workspace, stage)
    process.send_signal(number)
    if "Traceback" in (errors := process.communicate(timeout=300)[1]):
        raise WrongResult(f"a traceback: {errors.splitlines()[-1]}")
    check_resumption(workspace)


def fill_disk(workspace: Workspace, size: int) -> None:
    """Run while files cannot grow beyond a size, then resume without the limit."""
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
    message = wait(workspace.start(settings=SETTINGS, popen={"preexec_fn": limit}))
    if "make room" not in message and "disk" not in message:
        raise WrongResult(f"message about a full disk: {message!r}")
    check_resumption(workspace)


def start_twice(workspace: Workspace, stage: str, settings: tuple[str, ...] = ()) -> None:
    """Run two processes in one folder: one finishes, and the other is refused or finds the finished run."""
    first = start_until(workspace, stage) if stage else workspace.start(settings=SETTINGS)
    messages = [wait(process) for process in (workspace.start(settings=(*SETTINGS, *settings)), first)]
    if all(messages) or (stage and messages[1]):
        raise WrongResult(f"neither process finishes: {messages}")
    if wrong := [line for line in messages if line and "in use by another" not in line and "another exp" not in line]:
        raise WrongResult(wrong[0])
    check_resumption(workspace)


def interruptions() -> Iterator[Case]:
    """Cases of the category processes."""
    runs: dict[str, Callable[[Workspace], None]] = {
        **{f"{n.name} once {at} exists": partial(stop, number=n, stage=at) for n in SIGNALS for at in STAGES},
        **{f"files of at most {size} bytes": partial(fill_disk, size=size) for size in FILE_SIZES},
        "two at once, same command": partial(start_twice, stage="config.yaml"),
        "two at once, other settings": partial(start_twice, stage="config.yaml", settings=("OPTIM.LR", "0.02")),
        "two started at the same time": partial(start_twice, stage=""),
    }
    for name, run in runs.items():
        yield Case("processes", name, run, ACCEPTED, seconds=400)


# -------------------------------------------------------------------- environments


def close_streams() -> None:
    os.closerange(0, 3)


POPEN: dict[str, dict[str, Any]] = {  # options of Popen
    "closed standard streams": {"preexec_fn": close_streams, "stdout": None, "stderr": None},
    "forty open files": {"preexec_fn": partial(resource.setrlimit, resource.RLIMIT_NOFILE, (40, 40))},
    "a umask of 0777": {"umask": 0o777},
}


def run(
    workspace: Workspace,
    environment: Mapping[str, str | None] | None = None,
    out: Path | None = None,
    **options: Any,
) -> bytes:
    """Do a run as a process; see `Workspace.start`. Returns its predictions."""
    out = out or workspace.folder / "out"
    if message := wait(workspace.start(out=out, environment=environment, **options)):
        raise UserError(message)
    return (out / "predictions.csv").read_bytes()


def non_ascii_names(workspace: Workspace) -> None:
    """File names outside ASCII, in an ASCII locale."""
    folder, out = workspace.folder / "füße", workspace.folder / "Ausgänge"
    folder.mkdir()
    for path in workspace.images.iterdir():
        (folder / f"犬 {path.name}").write_bytes(path.read_bytes())
    names = workspace.write("names.txt", "café\n犬\n")
    images = Path(os.fsencode(folder).decode("ascii", "surrogateescape"))  # as a script passes it in this locale
    locale = INPUTS["environments"]["LANG=C, no UTF-8 mode"]
    if "犬 0.png".encode() not in run(workspace, locale, out, images=images, classes=str(names)):
        raise WrongResult("predictions.csv lacks the name of a file")


def closed_pipe(workspace: Workspace) -> None:
    """Output to a pipe that its reader closes, as `head -1` does."""
    process = workspace.start()
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    if process.wait(timeout=110) or "Traceback" in errors or "Exception" in errors:
        raise WrongResult(f"exit code {process.returncode}: {errors[-200:]}")


def unprivileged_user(workspace: Workspace) -> None:
    """A user without a home, who owns only the output."""
    parents = (*ROOT.parents, *Path(sys.executable).resolve().parents)
    if os.getuid() or not all(folder.stat().st_mode & 0o005 == 0o005 for folder in parents):
        return  # only root can change the user, who must be able to read the checkout and Python
    (workspace.folder / "out").mkdir()
    os.chown(workspace.folder / "out", NOBODY, NOBODY)
    for folder in (workspace.folder, workspace.shared):
        folder.chmod(0o755)
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    run(workspace, {"HOME": "/nonexistent", "XDG_CACHE_HOME": None}, popen=user)


def other_device(workspace: Workspace) -> None:
    """Output on another device than the temporary files."""
    if Path("/dev/shm").is_dir():
        out = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="coft-faults-"))
        try:
            run(workspace, out=out)
        finally:
            shutil.rmtree(out)


def environments() -> Iterator[Case]:
    """Cases of the category environments."""
    for name, variables in INPUTS["environments"].items():
        yield Case("environments", name, partial(run, environment=variables), ACCEPTED, seconds=120)
    for name, options in POPEN.items():
        expected = ACCEPTED if "streams" in name else EITHER
        yield Case("environments", name, partial(run, popen=options), expected, seconds=120)
    for function in (non_ascii_names, closed_pipe, unprivileged_user, other_device):
        yield Case("environments", (function.__doc__ or "").rstrip("."), function, ACCEPTED, seconds=120)
