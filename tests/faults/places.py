"""Places and moments: folders in the way or of odd names, few images, files that change or go during a run."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from PIL import Image

from coft.cli.main import main as coft
from coft.core.errors import UserError

from .clips import use
from .drawing import drawn
from .formats import Format
from .mutations import GARBAGE, INPUTS, NAMES, NOT_THERE, PLACES, only, placing, without
from .oracle import EITHER, FINE, REFUSED, Case, Right, Wrong
from .runs import without_room
from .scene import CLASSES, Scene, call

SCENES: list[Case] = []


def scenes() -> list[Case]:
    """Cases of several categories, each a function below."""
    return SCENES


def enter(category: str, right: Right = FINE, *names: str, **options: Any) -> Callable[[Callable[..., object]], Any]:
    """Enter a function, with its options, among the scenes; the case is called as the function says of itself."""

    def decorated(function: Callable[..., object]) -> Callable[..., object]:
        name = " ".join([function.__doc__ or "", *map(repr, options.values())])
        SCENES.append(Case(category, name, partial(function, **options), right, names, 120))
        return function

    return decorated


NO_FOLDERS = {
    **without(NOT_THERE, "not there", "a folder"),
    **only(PLACES, "a pipe", "a device"),
    "a file": lambda path: None,
    "a folder that may not be listed": placing(lambda path: path.mkdir(mode=0)),
}


def give(way: str, scene: Scene, path: Path) -> None:
    if way == "--images":
        scene.train(images=path)
    elif way.startswith("--"):
        use(way, scene, path)
    else:
        call(coft, way, path, *([scene.images] if way == "predict" else []))


def folders() -> Iterator[Format]:
    """What is given for a folder, and is none."""
    make, names = partial(Scene.file, name="odd", content=b"x"), ("odd", "nowhere", "/dev/zero")  # or where links lead
    for way in ("--images", "--output-dir", "--resume", "--eval-only --model-dir", "predict", "report", "review"):
        refused = NO_FOLDERS if way != "--output-dir" else without(NO_FOLDERS, "a folder that may not be listed")
        yield Format("places", f"{way} odd", make, partial(give, way), refused, names=names)


def in_odd_folders(scene: Scene, name: str) -> None:
    """Images, output and class file in folders called"""
    place = scene.place / name
    images = Path(shutil.copytree(scene.images, place / "images"))
    (place / "names.txt").write_text(CLASSES.replace(", ", "\n"), encoding="utf-8")
    out = scene.train(out=place / "out", images=images, classes=str(place / "names.txt"))
    call(coft, "report", out)
    if len(scene.predict(out, images).splitlines()) < 13:
        raise Wrong("not all images are predicted")


for _name in INPUTS["odd names"]:
    enter("places", name=_name)(in_odd_folders)


@enter("folders")
def corrected(scene: Scene) -> None:
    """A command with a mistake that is seen late, then the right one: the folder is free"""
    for settings in (("OPTIM.LR", "1e30"), ("DATASET.UNLABELED", "val"), ("TRAIN.PHASE1_FROM", "nowhere")):
        with suppress(UserError):
            scene.train(settings=settings)
    ours = mock.patch("torch.autograd.backward", side_effect=ZeroDivisionError("a fault of ours"))
    with ours, suppress(ZeroDivisionError):
        scene.train(settings=("OPTIM.LR", "0.5"))
    scene.train()


@enter("folders", REFUSED, "out")
def within(scene: Scene) -> None:
    """An output folder among the images: its pictures would be images of the next run"""
    photos = scene.copied_images()
    scene.train(out=photos / "out", images=photos)


@enter("folders", REFUSED, "out")
def full(scene: Scene) -> None:
    """An output folder without room"""
    scene.run  # noqa: B018 - what is shared has room
    without_room(scene.train)


PLAIN = (b"caf\xe9.png", b"\xff\xfe.png", b"\n.png", b"\x1b[31m.png", "\u202e.png".encode(), b"a,b;'\".png", b"-rf.png")


@enter("images")
def bad_among_good(scene: Scene) -> None:
    """Bad files among good ones: each is left out with its reason"""
    folder = scene.copied_images()
    bad = GARBAGE | without(PLACES, "not there", "a folder", "not to be read", "a circle of links")
    for name, mutate in bad.items():
        mutate(scene.file(f"photos/{name}.png", b""))
    (folder / "circle").symlink_to(folder)
    reasons = (scene.train(images=folder) / "skipped.csv").read_text()
    if taken := [name for name in bad if f"{name}.png" not in reasons]:
        raise Wrong(f"taken for images: {taken}")


@enter("images", count=20)
@enter("places", count=300)
def names_of_files(scene: Scene, count: int) -> None:
    """Names of files that are no text, or were drawn: each is in predictions.csv"""
    folder = scene.place / "photos"
    folder.mkdir()
    names = [*PLAIN, *(name + b".png" for name in drawn(NAMES, count) if not name.startswith(b"."))]
    for name, path in zip(names, itertools.cycle(sorted(scene.images.iterdir())), strict=False):
        (folder / os.fsdecode(name)).write_bytes(path.read_bytes())
    predicted = (scene.train(images=folder) / "predictions.csv").read_bytes()
    if missing := [name for name in names if name.replace(b'"', b'""') not in predicted]:
        raise Wrong(f"predictions.csv lacks {missing[0]!r}")


@enter("images", EITHER, count=1)
@enter("images", EITHER, count=2, classes=10)
@enter("images", EITHER, count=4)
@enter("images", EITHER, count=6, size=1)
@enter("images", EITHER, count=6, same=True)
@enter("images", EITHER, count=12, classes=500)
def few(scene: Scene, count: int, classes: int = 3, size: int = 32, same: bool = False) -> None:
    """Few images, small, all the same, or of many classes:"""
    folder = scene.place / "photos"
    folder.mkdir()
    for number in range(count):
        image = Image.open(scene.images / f"{number}.png").resize((size, size))
        (Image.new("RGB", (32, 32)) if same else image).save(folder / f"{number}.png")
    out = scene.train(images=folder, classes=", ".join(f"thing {number}" for number in range(classes)))
    if len((out / "predictions.csv").read_text().splitlines()) != count + 1:
        raise Wrong("not all images are predicted")


@enter("places")
def elsewhere(scene: Scene) -> None:
    """A run that was moved, used by a relative path of a link"""
    Path("link").symlink_to(scene.copied_run().rename(scene.place / "moved"))
    scene.predict(Path("link"))
    call(coft, "report", "link")
    scene.train(out=Path("link"))  # done already


@enter("places")
def without_images(scene: Scene) -> None:
    """The report of a run whose images are gone"""
    images = scene.copied_images()
    out = scene.train(images=images)
    shutil.rmtree(images)
    call(coft, "report", out)


@enter("places")
def odd_times(scene: Scene) -> None:
    """A clock that goes back, and images from a time to come or before all times"""
    images = scene.copied_images()
    for number, path in enumerate(images.iterdir()):
        os.utime(path, ((-1e9, 4e9)[number % 2],) * 2)
    begin, ticks = time.time(), itertools.count()
    with mock.patch("time.time", lambda: begin - 100.0 * next(ticks)):
        scene.train(images=images)


def at_first_step(work: Callable[[], object]) -> Any:
    """Context of a run: something happens beside it at its first step."""
    backward, todo = torch.autograd.backward, iter([work])

    def step(*args: Any, **options: Any) -> None:
        next(todo, lambda: None)()
        backward(*args, **options)

    return mock.patch("torch.autograd.backward", step)


@enter("places", REFUSED, ".png", gone=False)
@enter("places", REFUSED, ".png", gone=True)
def changing(scene: Scene, gone: bool) -> None:
    """Images that change, or go, meanwhile"""
    images = scene.copied_images()

    def spoil() -> None:
        for path in images.iterdir():
            path.unlink() if gone else path.write_bytes((scene.images / "0.png").read_bytes() + path.name.encode())

    with at_first_step(spoil):
        scene.train(images=images, settings=("INPUT.CACHE_MB", "0"))


@enter("places", EITHER, "out")
def output_gone(scene: Scene) -> None:
    """An output folder that somebody removes meanwhile"""
    quiet = mock.patch("threading.excepthook")  # tensorboard's thread says what it does not find
    with quiet, at_first_step(lambda: shutil.rmtree(scene.place / "out")):
        scene.train()


REFUSALS: dict[str, dict[str, int]] = {  # of the system, by what is asked of it
    "to another device": {"os.link": errno.EXDEV},
    "to a full disk": {"os.link": errno.EXDEV, "shutil.copyfileobj": errno.ENOSPC},
    "that are gone": {"os.link": errno.ENOENT},
}


def contents(*folders: Path) -> list[bytes]:
    return sorted(path.read_bytes() for folder in folders for path in folder.rglob("*.png"))


@enter("places", way="to another device")
@enter("places", way="to a full disk")
@enter("places", way="that are gone")
def moved(scene: Scene, way: str) -> None:
    """Images that are moved into folders of classes: none is lost, whatever fails, and all can be moved back;"""
    images, target = scene.copied_images(), scene.place / "sorted"
    with ExitStack() as stack, suppress(Wrong):  # the exit code is 1 where some could not be moved
        for function, number in REFUSALS[way].items():
            stack.enter_context(mock.patch(function, side_effect=OSError(number, os.strerror(number))))
        scene.predict(scene.run, images, "--move", target)
    if contents(images, target) != contents(scene.images):
        raise Wrong("an image is lost, or there twice")
    call(coft, "predict", "--undo", target)
    if contents(images) != contents(scene.images):
        raise Wrong("not all images are back")
