"""Generated sequences of actions on runs and on sorted images: nothing is lost, and results stay bit-identical."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st

import coft
from coft.core.errors import UserError
from coft.engine import state
from coft.inference.sorting import Sorter
from coft.inference.undo_journal import undo

from .generate import draw
from .mutations import DAMAGE, GARBAGE, MISSING
from .verdict import Case, WrongResult
from .workspace import CLASSES, Workspace

Action = tuple[str, int]  # its kind, and a number that selects a file
SHORT_RUN = {
    **{"seeds_per_class": 2, "phase1__epochs": 1, "phase1__min_steps": 2, "phase2__epochs": 2, "input__cache_mb": 0},
}
DAMAGES = list({**GARBAGE, **DAMAGE, **MISSING}.values())


class Killed(BaseException):
    """Simulated end of the process, which nothing in the project catches."""


def killed_after(count: int) -> Any:
    """Return a context in which the process is killed after `count` links and removals of files."""
    remaining = iter(range(count))

    def change(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if next(remaining, None) is None:
            raise Killed
        return function(*args, **options)

    return mock.patch.multiple(
        os, **{name: partial(change, getattr(os, name)) for name in ("link", "unlink", "symlink")}
    )


def sort(workspace: Workspace, actions: list[Action]) -> None:
    """Move, link, edit and restore images, partly killed: no content is lost, and links keep their targets."""
    photos, target = workspace.copy_images(), workspace.folder / "sorted"
    (photos / "link.png").symlink_to("0.png")
    expected = [path.read_bytes() for path in photos.iterdir() if not path.is_symlink()]
    for kind, number in actions:
        files = sorted(path for path in workspace.folder.rglob("*.png") if path.is_file())
        file = files[number % len(files)]
        if kind == "edit":
            expected = [data for data in expected if data != file.read_bytes()] + [b"edited %d" % number]
            file.resolve().write_bytes(b"edited %d" % number)
        elif kind == "undo":
            for journal in target.glob("*.jsonl"):
                undo(journal)
        else:
            sort_files(target, files[number % 3 :: 2], kind, number)
        contents = {path.read_bytes() for path in workspace.folder.rglob("*.png") if path.is_file()}
        if lost := [data for data in expected if data not in contents]:
            raise WrongResult(f"{len(lost)} images are lost after {kind}")
        broken = [path for path in workspace.folder.rglob("link*.png") if not path.exists()]
        if broken and (photos / "0.png").exists() and "link" not in dict(actions):
            raise WrongResult(f"{broken[0].name} is a broken link after {kind}")


def sort_files(target: Path, files: list[Path], kind: str, number: int) -> None:
    """Move or link files into a class folder; with the kind "kill" only until a few changes were made."""
    sorter = Sorter(target, ["cat", "dog"], kind == "link")
    with suppress(Killed, UserError), killed_after(number % 4 if kind == "kill" else 1000):
        for path in files:
            sorter.put(path, ("cat", "dog")[number % 2])
    sorter.close()


def adapt(workspace: Workspace, out: Path, epochs: int = 9) -> None:
    """Adapt a tiny CLIP; the process is killed after some epochs."""
    write, remaining = state.write, iter(range(epochs))

    def write_state(*args: Any) -> None:
        write(*args)
        if next(remaining, None) is None:
            raise Killed

    settings: dict[str, Any] = {"backbone": str(workspace.clip), "progress": False, **SHORT_RUN}
    with mock.patch.object(state, "write", write_state):
        coft.adapt(workspace.images, CLASSES.split(", "), output=out, **settings)


def run(workspace: Workspace, actions: list[Action]) -> None:
    """Start, kill, damage and resume a run: its results are those of an uninterrupted run, unless it is refused."""
    uninterrupted, out = workspace.shared / "adapted", workspace.folder / "out"
    if not (uninterrupted / "model").is_dir():
        adapt(workspace, uninterrupted)
    for kind, number in actions:
        files = sorted(path for path in out.rglob("*") if path.is_file()) if out.is_dir() else []
        if kind == "damage" and files:
            DAMAGES[number % len(DAMAGES)](files[number % len(files)])
        elif kind == "remove":
            shutil.rmtree(out, ignore_errors=True)
        else:
            with suppress(Killed):
                adapt(workspace, out, number % 3)
    adapt(workspace, out)
    if not any(kind == "damage" for kind, _ in actions):
        for name in ("labels.csv", "predictions.csv", "model/model.safetensors"):
            if (out / name).read_bytes() != (uninterrupted / name).read_bytes():
                raise WrongResult(f"{name} differs from that of an uninterrupted run")


def action_lists(kinds: tuple[str, ...], longest: int) -> st.SearchStrategy[list[Action]]:
    return st.lists(st.tuples(st.sampled_from(kinds), st.integers(0, 999)), min_size=2, max_size=longest)


def sequences() -> Iterator[Case]:
    """Cases of the category sequences."""
    sorts = draw(action_lists(("move", "kill", "edit", "undo", "link"), 6), 150)
    runs = draw(action_lists(("kill", "damage", "resume", "remove"), 4), 12)
    for function, examples in ((sort, sorts), (run, runs)):
        for number, actions in enumerate(examples):
            text = " ".join(f"{kind} {n}" for kind, n in actions)
            name = f"{function.__name__} {number}: {text}"
            yield Case("sequences", name, partial(function, actions=actions), seconds=120)
