"""Where a run is started: variables, streams, limits and users that are not what one is used to."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..case import Case, Right, Wrong
from ..scene import ROOT, Scene
from .processes import ended

CATEGORY = "environments"
NOBODY = 65534
ASCII = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
VARIABLES: dict[str, Mapping[str, str | None]] = {  # None: not set
    "LANG=C, no UTF-8 mode": ASCII,
    "a locale that is none": {"LC_ALL": "xx_YY.UTF-8", "LANG": "xx_YY"},
    "no HOME": {"HOME": None},
    "a HOME that is not there": {"HOME": "/nonexistent/home"},
    "a HOME that is a file": {"HOME": "/dev/null", "XDG_CACHE_HOME": None},
    "a cache folder that cannot be": {"XDG_CACHE_HOME": "/dev/null/x", "TORCH_HOME": "/dev/null/x"},
    "a relative cache folder": {"XDG_CACHE_HOME": "."},
    "threads that are no number": {"OMP_NUM_THREADS": "abc", "MKL_NUM_THREADS": "abc"},
    "no threads": {"OMP_NUM_THREADS": "0", "MKL_NUM_THREADS": "0"},
    "no GPU to be seen": {"CUDA_VISIBLE_DEVICES": "-1"},
    "a backend of notebooks": {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
    "a backend that is none": {"MPLBACKEND": "nonsense"},
    "no folder for drafts": {"TMPDIR": "/nonexistent/tmp"},
    "a terminal of no width": {"COLUMNS": "0", "LINES": "0", "TERM": ""},
    "a width that is no number": {"COLUMNS": "wide"},
    "variables of a launcher that is gone": {"RANK": "0", "LOCAL_RANK": "0"},
    "an empty seed of hashes": {"PYTHONHASHSEED": "0"},
    "errors for warnings": {"PYTHONWARNINGS": "error::DeprecationWarning"},
    "no assertions": {"PYTHONOPTIMIZE": "1"},
    "variables that are empty": {"DATA": "", "CALLED_FROM": "", "XDG_CACHE_HOME": "", "HF_HOME": ""},
}


def cases(quick: bool) -> list[Case]:
    """All cases; with `quick`, none: each takes a process."""
    if quick:
        return []
    found = [
        Case(CATEGORY, name, partial(started, environment=variables), Right.FINE, seconds=120)
        for name, variables in VARIABLES.items()
    ]
    others: dict[str, Callable[[Scene], None]] = {
        "names beyond ASCII, LANG=C": foreign_names,
        "standard streams that are closed": closed_streams,
        "a reader that has seen enough": full_reader,
        "forty open files": partial(limited, what=resource.RLIMIT_NOFILE, most=40),
        "a umask of 0777": partial(started, options={"umask": 0o777}),
        "a user who may write the output alone": nobody,
        "output on another device": other_device,
    }
    rights = {"forty open files": Right.EITHER, "a umask of 0777": Right.EITHER}
    return found + [
        Case(CATEGORY, name, run, rights.get(name, Right.FINE), seconds=120) for name, run in others.items()
    ]


def started(
    scene: Scene,
    environment: Mapping[str, str | None] | None = None,
    options: Mapping[str, Any] | None = None,
    out: Path | None = None,
    **more: Any,
) -> None:
    """Do a run as a process, and look for its predictions."""
    place = out or scene.place / "out"
    process = scene.process("--output-dir", str(place), environment=environment, started=options, **more)
    code, line = ended(process)
    if code:
        raise_for(code, line)
    if len((place / "predictions.csv").read_bytes().splitlines()) < 2:
        raise Wrong("there are no predictions")


def raise_for(code: int, line: str) -> None:
    """An ending in a line is a clean error; any other is wrong."""
    from coft.core.errors import UserError

    if code == 2 and line.startswith("error: "):
        raise UserError(line.removeprefix("error: "))
    raise Wrong(f"exit code {code}: {line}")


def foreign_names(scene: Scene) -> None:
    """Images and classes with names that ASCII does not have."""
    folder = scene.place / "füße"
    folder.mkdir()
    for path in sorted(scene.images.iterdir()):
        (folder / f"犬 {path.name}").write_bytes(path.read_bytes())
    names = scene.file("names.txt", "café\n犬\n")
    said = Path(os.fsencode(folder).decode("ascii", "surrogateescape"))  # as scripts say it under such a locale
    started(scene, ASCII, out=scene.place / "Ausgänge", images=said, classes=str(names))
    if "犬 0.png".encode() not in (scene.place / "Ausgänge" / "predictions.csv").read_bytes():
        raise Wrong("predictions.csv lacks a file under its own name")


def closed_streams(scene: Scene) -> None:
    """As of a daemon: nothing is there to write to."""

    def close() -> None:
        for number in (0, 1, 2):
            os.close(number)

    process = scene.process(started={"preexec_fn": close, "stdout": None, "stderr": None})
    if process.wait(timeout=110) or not (scene.place / "out" / "predictions.csv").is_file():
        raise Wrong(f"exit code {process.returncode}")


def full_reader(scene: Scene) -> None:
    """Output that goes to `head -1`."""
    process = scene.process()
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    process.wait(timeout=110)
    if "Traceback" in errors or "Exception" in errors or process.returncode:
        raise Wrong(f"exit code {process.returncode}: {errors[-200:]}")


def limited(scene: Scene, what: int, most: int) -> None:
    """Run with less of something."""
    started(scene, options={"preexec_fn": partial(resource.setrlimit, what, (most, most))})


def nobody(scene: Scene) -> None:
    """Run as a user who owns nothing, and has no home."""
    seen = (*ROOT.parents, *Path(sys.executable).resolve().parents)
    if os.getuid() or not all(place.stat().st_mode & 0o005 == 0o005 for place in seen):
        return  # only root can be somebody else, who may see the checkout and Python
    for place in (scene.place, scene.shared):
        place.chmod(0o755)
    out = scene.place / "out"
    out.mkdir()
    os.chown(out, NOBODY, NOBODY)
    options = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    started(scene, {"HOME": "/nonexistent", "XDG_CACHE_HOME": None}, options)


def other_device(scene: Scene) -> None:
    """Write to memory, where no file of the disk can be renamed to."""
    import shutil
    import tempfile

    if not Path("/dev/shm").is_dir():
        return
    out = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="coft-faults-"))
    try:
        started(scene, out=out)
    finally:
        shutil.rmtree(out)
