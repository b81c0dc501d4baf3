"""Runs in unusual places and conditions: odd paths, bad or few images, files that change or disappear meanwhile."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from PIL import Image

from coft.cli.main import main as coft

from .backbones import train_with
from .formats import Format
from .generate import draw
from .mutations import (
    BROKEN_LINKS,
    FILE_NAMES,
    INPUTS,
    SPECIAL_FILES,
    Mutations,
    replace_by,
)
from .verdict import ACCEPTED, EITHER, REFUSED, Case, Expected, WrongResult
from .workspace import CLASSES, Workspace, call

CASES: list[Case] = []  # of several categories; filled by `case`


def conditions() -> list[Case]:
    """Cases of several categories, each a function below."""
    return CASES


def case(category: str, expected: Expected = ACCEPTED, *names: str, **options: Any) -> Callable[..., Any]:
    """Return a decorator that adds a function with these options to the cases, named by its docstring."""

    def decorated(function: Callable[..., object]) -> Callable[..., object]:
        name = " ".join([(function.__doc__ or "").partition(":")[0].rstrip("."), *map(repr, options.values())])
        CASES.append(Case(category, name, partial(function, **options), expected, names, 120))
        return function

    return decorated


# -------------------------------------------------------------------- paths

NO_FOLDERS: Mutations = {**BROKEN_LINKS, **SPECIAL_FILES, "a file": lambda path: None}
LOCKED: Mutations = {"a folder that cannot be listed": replace_by(lambda path: path.mkdir(mode=0))}


def use_as_folder(workspace: Workspace, path: Path, argument: str) -> None:
    """Pass a path as the value of a flag of train.py, or as the first argument of a command of coft."""
    if argument == "--images":
        workspace.train(images=path)
    elif argument.startswith("--"):
        train_with(workspace, path, argument)
    else:
        call(coft, argument, path, *([workspace.images] if argument == "predict" else []))


def not_folders() -> Iterator[Format]:
    """Paths that are given as folders, but are not."""
    make = partial(Workspace.write, name="odd", content=b"x")
    for argument in ("--images", "--output-dir", "--resume", "--eval-only --model-dir", "predict", "report", "review"):
        refused = NO_FOLDERS if argument == "--output-dir" else {**NO_FOLDERS, **LOCKED}
        read, targets = partial(use_as_folder, argument=argument), ("odd", "nowhere", "/dev/zero")
        yield Format("paths", f"{argument} odd", make, read, refused, input_names=targets)


def odd_folder(workspace: Workspace, name: str) -> None:
    """Images, output and class file in a folder named"""
    folder = workspace.folder / name
    images = Path(shutil.copytree(workspace.images, folder / "images"))
    (folder / "names.txt").write_text(CLASSES.replace(", ", "\n"), encoding="utf-8")
    out = workspace.train(out=folder / "out", images=images, classes=str(folder / "names.txt"))
    call(coft, "report", out)
    if len(workspace.predict(out, images).splitlines()) < 13:
        raise WrongResult("predictions are missing")


for _name in INPUTS["odd file names"]:
    case("paths", name=_name)(odd_folder)


@case("paths")
def moved_run(workspace: Workspace) -> None:
    """A run that was moved, used by a relative path of a link."""
    Path("link").symlink_to(workspace.copy_run().rename(workspace.folder / "moved"))
    workspace.predict(Path("link"))
    call(coft, "report", "link")
    workspace.train(out=Path("link"))  # already finished


# -------------------------------------------------------------------- images

ODD_FILE_NAMES = (
    *(b"caf\xe9.png", b"\xff\xfe.png", b"\n.png", b"\x1b[31m.png", "\u202e.png".encode(), b"a,b;'\".png", b"-rf.png"),
)


@case("images", count=20)
@case("paths", count=300)
def odd_file_names(workspace: Workspace, count: int) -> None:
    """Image names that are no text, or were generated: each is in predictions.csv."""
    folder = workspace.folder / "photos"
    folder.mkdir()
    names = [*ODD_FILE_NAMES, *(name + b".png" for name in draw(FILE_NAMES, count) if not name.startswith(b"."))]
    for name, path in zip(names, itertools.cycle(sorted(workspace.images.iterdir())), strict=False):
        (folder / os.fsdecode(name)).write_bytes(path.read_bytes())
    predictions = (workspace.train(images=folder) / "predictions.csv").read_bytes()
    if missing := [name for name in names if name.replace(b'"', b'""') not in predictions]:
        raise WrongResult(f"predictions.csv lacks {missing[0]!r}")


@case("images", EITHER, count=1)
@case("images", EITHER, count=2, num_classes=10)
@case("images", EITHER, count=4)
@case("images", EITHER, count=6, size=1)
@case("images", EITHER, count=6, identical=True)
@case("images", EITHER, count=12, num_classes=500)
def few_images(workspace: Workspace, count: int, num_classes: int = 3, size: int = 32, identical: bool = False) -> None:
    """Images that are few, small or identical, or of many classes."""
    folder = workspace.folder / "photos"
    folder.mkdir()
    for number in range(count):
        image = Image.open(workspace.images / f"{number}.png").resize((size, size))
        (Image.new("RGB", (32, 32)) if identical else image).save(folder / f"{number}.png")
    classes = ", ".join(f"thing {number}" for number in range(num_classes))
    out = workspace.train(images=folder, classes=classes)
    if len((out / "predictions.csv").read_text().splitlines()) != count + 1:
        raise WrongResult("predictions are missing")


@case("paths")
def odd_times(workspace: Workspace) -> None:
    """A clock that runs backwards, and images from the future or from before 1970."""
    images = workspace.copy_images()
    for number, path in enumerate(images.iterdir()):
        os.utime(path, ((-1e9, 4e9)[number % 2],) * 2)
    begin, ticks = time.time(), itertools.count()
    with mock.patch("time.time", lambda: begin - 100.0 * next(ticks)):
        workspace.train(images=images)


# -------------------------------------------------------------------- changes during a run


def at_first_step(function: Callable[[], object]) -> Any:
    """Return a context in which a function is called at the first training step."""
    backward, pending = torch.autograd.backward, iter([function])

    def step(*args: Any, **options: Any) -> None:
        next(pending, lambda: None)()
        backward(*args, **options)

    return mock.patch("torch.autograd.backward", step)


@case("paths", REFUSED, ".png", deleted=False)
@case("paths", REFUSED, ".png", deleted=True)
def changing_images(workspace: Workspace, deleted: bool) -> None:
    """Images that change or are deleted during the run."""
    images = workspace.copy_images()

    def change() -> None:
        for path in images.iterdir():
            path.unlink() if deleted else path.write_bytes(
                (workspace.images / "0.png").read_bytes() + path.name.encode()
            )

    with at_first_step(change):
        workspace.train(images=images, settings=("INPUT.CACHE_MB", "0"))


@case("paths", EITHER, "out")
def deleted_output(workspace: Workspace) -> None:
    """An output folder that is deleted during the run."""
    without_threads = mock.patch("threading.excepthook")  # tensorboard's thread reports its missing file
    with without_threads, at_first_step(lambda: shutil.rmtree(workspace.folder / "out")):
        workspace.train()
