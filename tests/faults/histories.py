"""Histories: what happens to runs and to sorted images one after the other, drawn; nothing is lost, and bits stay."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
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

from .drawing import drawn
from .mutations import DAMAGE, GARBAGE, NOT_THERE, Mutation
from .oracle import EITHER, Case, Wrong
from .scene import CLASSES, Scene

Step = tuple[str, int]  # what is done, and to which file
SHORT = {"seeds_per_class": 2, "phase1__epochs": 1, "phase1__min_steps": 2, "phase2__epochs": 2, "input__cache_mb": 0}
DAMAGES: Mapping[str, Mutation] = GARBAGE | DAMAGE | NOT_THERE


class Killed(BaseException):
    """What stands for the end of a process: nothing of ours catches it."""


def histories(kinds: tuple[str, ...], most: int) -> st.SearchStrategy[list[Step]]:
    return st.lists(st.tuples(st.sampled_from(kinds), st.integers(0, 999)), min_size=2, max_size=most)


# -------------------------------------------------------------------- sorted images


def killed_after(count: int) -> Any:
    """Context in which a process ends after some changes of the file system: links, copies, removals."""
    left = iter(range(count))

    def step(work: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if next(left, None) is None:
            raise Killed
        return work(*args, **options)

    return mock.patch.multiple(
        os, link=partial(step, os.link), unlink=partial(step, os.unlink), symlink=partial(step, os.symlink)
    )


def sort(scene: Scene, steps: list[Step]) -> None:
    """Move images, kill that, edit some, undo: no content is lost, and links lead to what they did."""
    photos = scene.copied_images()
    (photos / "link.png").symlink_to("0.png")
    kept = [path.read_bytes() for path in photos.iterdir() if not path.is_symlink()]
    for kind, number in steps:
        files = sorted(path for path in scene.place.rglob("*.png") if path.is_file())
        file = files[number % len(files)]
        if kind == "edit":
            kept = [content for content in kept if content != file.read_bytes()] + [b"edited %d" % number]
            file.resolve().write_bytes(b"edited %d" % number)
        elif kind == "undo":
            for journal in (scene.place / "sorted").glob("*.jsonl"):
                undo(journal)
        else:
            sorter = Sorter(scene.place / "sorted", ["cat", "dog"], kind == "link")
            context = killed_after(number % 4) if kind == "kill" else mock.patch.object(sorter, "link", sorter.link)
            with suppress(Killed, UserError), context:
                for path in files[number % 3 :: 2]:
                    sorter.put(path, ("cat", "dog")[number % 2])
            sorter.close()
        here = {path.read_bytes() for path in scene.place.rglob("*.png") if path.is_file()}
        if lost := [content for content in kept if content not in here]:
            raise Wrong(f"{len(lost)} images are lost after {kind}")
        left = [path for path in scene.place.rglob("link*.png") if not path.exists()]
        if left and (photos / "0.png").exists() and "link" not in dict(steps):
            raise Wrong(f"{left[0].name} leads nowhere after {kind}")


# -------------------------------------------------------------------- runs


def adapt(scene: Scene, out: Path, epochs: int = 9) -> None:
    """Adapt a tiny CLIP, and be killed after some epochs."""
    write, left = state.write, iter(range(epochs))

    def written(*args: Any) -> None:
        write(*args)
        if next(left, None) is None:
            raise Killed

    settings: dict[str, Any] = {"backbone": str(scene.clip), "progress": False, **SHORT}
    with mock.patch.object(state, "write", written):
        coft.adapt(scene.images, CLASSES.split(", "), output=out, **settings)


def run(scene: Scene, steps: list[Step]) -> None:
    """Start, kill, damage a file, go on: the end is that of a run that nobody stopped, or a line says why not."""
    whole, out = scene.shared / "adapted", scene.place / "out"
    if not (whole / "model").is_dir():
        adapt(scene, whole)
    for kind, number in steps:
        files = sorted(path for path in out.rglob("*") if path.is_file()) if out.is_dir() else []
        if kind == "damage" and files:
            file = files[number % len(files)]
            list(DAMAGES.values())[number % len(DAMAGES)](file)
        elif kind == "remove":
            shutil.rmtree(out, ignore_errors=True)
        else:
            with suppress(Killed):
                adapt(scene, out, number % 3)
    adapt(scene, out)
    if not any(kind == "damage" for kind, _ in steps):
        names = ("labels.csv", "predictions.csv", "model/model.safetensors")
        if other := [name for name in names if (out / name).read_bytes() != (whole / name).read_bytes()]:
            raise Wrong(f"{other[0]} is another one than of a run that nobody stopped")


def drawn_histories() -> Iterator[Case]:
    """Cases of the category histories."""
    sorts = drawn(histories(("move", "kill", "edit", "undo", "link"), 6), 150)
    runs = drawn(histories(("kill", "damage", "go on", "remove"), 4), 12)
    for play, drawings in ((sort, sorts), (run, runs)):
        for number, steps in enumerate(drawings):
            told = " ".join(f"{kind} {n}" for kind, n in steps)
            yield Case("histories", f"{play.__name__} {number}: {told}", partial(play, steps=steps), EITHER, (), 120)
