"""Places and moments: folders of odd names, links in circles, copies of runs, files that change or go meanwhile."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from coft.inference.predict import command as predict
from coft.inference.store import load
from coft.report.write import write_report

from ..case import Case, Right, Wrong
from ..scene import CLASSES, Scene
from ..texts import NAMES, drawn

CATEGORY = "places"
REFUSED, FINE, EITHER = Right.REFUSED, Right.FINE, Right.EITHER
ODD = ("a b", "[x]*?", "'\"`$HOME", "{0} %s %(x)s", "Ä犬🐈", "-rf", "a\nb", "#?&;", "x" * 250, "..x", "caf\udce9", "~")


def cases(quick: bool) -> list[Case]:
    """All cases."""
    odd = [
        Case(CATEGORY, f"folders called {name[:20]!r}", partial(odd_folders, name=name), FINE, seconds=90)
        for name in (ODD[::6] if quick else ODD)
    ]
    ways = ("--images", "--output-dir", "--classes", "--backbone", "RUN")
    loops = [
        Case(CATEGORY, f"a circle of links for {way}", partial(circle, way=way), REFUSED, ("loop",)) for way in ways
    ]
    return [
        *odd,
        *loops,
        Case(CATEGORY, "nobody's home", partial(nobodys_home), REFUSED, ("~nobody-of-this-name", "no home")),
        Case(CATEGORY, "names of files that were drawn", partial(drawn_names, quick=quick), FINE, seconds=120),
        *at_runs(),
        *at_moving(),
    ]


def at_runs() -> list[Case]:
    """Cases of runs that are moved, and of what goes on beside a run."""
    found: dict[str, tuple[Callable[[Scene], object], Right, tuple[str, ...]]] = {
        "a run that was copied elsewhere": (copied_elsewhere, FINE, ()),
        "a run whose images are gone": (without_images, FINE, ()),
        "a class in another letter of model.json": (another_class, REFUSED, ("model.json",)),
        "a clock that goes back": (clock_back, FINE, ()),
        "files of the future": (from_the_future, FINE, ()),
        "images that change meanwhile": (changing, REFUSED, (".png",)),
        "images that go meanwhile": (partial(changing, gone=True), REFUSED, (".png",)),
        "the output folder goes meanwhile": (output_gone, EITHER, ("out",)),
    }
    return [Case(CATEGORY, name, run, right, names, 90) for name, (run, right, names) in found.items()]


def at_moving() -> list[Case]:
    """Cases of `predict --move`."""
    return [Case(CATEGORY, f"--move: {way}", partial(moved, way=way), FINE, seconds=60) for way in MOVING]


def odd_folders(scene: Scene, name: str) -> None:
    """Images, output and class file in folders of an odd name: from training to prediction and report."""
    place = scene.place / name
    images = Path(shutil.copytree(scene.images, place / "images"))
    (place / "names.txt").write_text(CLASSES.replace(", ", "\n"), encoding="utf-8")
    out = scene.train(f"--output-dir={place / 'out'}", images=images, classes=str(place / "names.txt"))
    write_report(out)
    target = scene.place / "predicted.csv"
    if predict([str(out), str(images), "--output", str(target)]) or len(target.read_bytes().splitlines()) < 13:
        raise Wrong("not all images are predicted")


def circle(scene: Scene, way: str) -> None:
    """A path that leads in a circle of links."""
    loop = scene.place / "loop"
    loop.symlink_to("loop")
    if way == "--images":
        scene.train(images=loop)
    elif way == "--classes":
        scene.train(classes=str(loop))
    elif way == "RUN":
        load(loop)
    else:
        scene.train(way, str(loop))


def nobodys_home(scene: Scene) -> None:
    """A path in the home of somebody who is not there."""
    scene.train(images=Path("~nobody-of-this-name/photos"))


def drawn_names(scene: Scene, quick: bool) -> None:
    """A run on files whose names were drawn; each is in predictions.csv under its own name."""
    folder, own = scene.place / "photos", sorted(scene.images.iterdir())
    folder.mkdir()
    names = [name + b".png" for name in drawn(NAMES, 20 if quick else 300) if not name.startswith(b".")]
    for name, path in zip(names, itertools.cycle(own)):
        (folder / os.fsdecode(name)).write_bytes(path.read_bytes())
    predicted = (scene.train(images=folder) / "predictions.csv").read_bytes()
    if missing := [name for name in names if name.replace(b'"', b'""') not in predicted]:
        raise Wrong(f"predictions.csv lacks {missing[0]!r}")


def copied_elsewhere(scene: Scene) -> None:
    """A run that was moved, used from a folder beside it by a relative path."""
    run = scene.copied_run().rename(scene.place / "moved")
    (scene.place / "link").symlink_to(run)
    relative = os.path.relpath(scene.place / "link")
    if predict([relative, str(scene.images), "--output", str(scene.place / "a.csv")]):
        raise Wrong("a copy does not predict")
    write_report(Path(relative))
    scene.train("--output-dir", relative)  # done already


def without_images(scene: Scene) -> None:
    """The report of a run whose images are not there any more."""
    images = Path(shutil.copytree(scene.images, scene.place / "photos"))
    out = scene.train(images=images)
    shutil.rmtree(images)
    write_report(out)


def another_class(scene: Scene) -> None:
    """Use a model of which somebody has changed a class."""
    path = scene.copied_run() / "model" / "model.json"
    content = json.loads(path.read_text())
    content["classes"][0] = "red circlf"
    path.write_text(json.dumps(content))
    load(path.parent)


def clock_back(scene: Scene) -> None:
    """A run while the clock is set back again and again."""
    begin, ticks = time.time(), itertools.count()
    with mock.patch("time.time", lambda: begin - 100.0 * next(ticks)):
        scene.train()


def from_the_future(scene: Scene) -> None:
    """Images, and a half-written file, from a time to come or before all times."""
    images = Path(shutil.copytree(scene.images, scene.place / "photos"))
    for number, path in enumerate(images.iterdir()):
        stamp = (-1e9, 4e9)[number % 2]
        os.utime(path, (stamp, stamp))
    scene.train(images=images)


def changing(scene: Scene, gone: bool = False) -> None:
    """Images that are overwritten, or go, after the run has looked at them."""
    from coft.method import pair

    images = Path(shutil.copytree(scene.images, scene.place / "photos"))
    step = pair.Pair.step

    def spoiling(self: pair.Pair, batch: object) -> object:
        for path in images.iterdir():
            path.unlink() if gone else path.write_bytes((scene.images / "0.png").read_bytes() + path.name.encode())
        return step(self, batch)  # type: ignore[arg-type]

    with mock.patch.object(pair.Pair, "step", spoiling):
        scene.train(images=images, settings=("INPUT.CACHE_MB", "0"))


def output_gone(scene: Scene) -> None:
    """Somebody removes the output folder."""
    from coft.method import pair

    step = pair.Pair.step

    def removing(self: pair.Pair, batch: object) -> object:
        shutil.rmtree(scene.place / "out", ignore_errors=True)
        return step(self, batch)  # type: ignore[arg-type]

    with mock.patch.object(pair.Pair, "step", removing):
        scene.train()


def moved(scene: Scene, way: str) -> None:
    """Move images into folders of classes while something fails: none is lost, and all can be moved back."""
    images = Path(shutil.copytree(scene.images, scene.place / "photos"))
    before = sorted((path.name, path.read_bytes()) for path in images.iterdir())
    target, taken = scene.place / "sorted", scene.place / "taken"
    taken.mkdir()
    with ExitStack() as stack:
        for fault in MOVING[way](images, taken):
            stack.enter_context(fault)
        predict([str(scene.run), str(images), "--move", str(target), "--output", str(scene.place / "a.csv")])
    now = [*images.iterdir(), *target.glob("*/*"), *taken.iterdir()]
    if sorted(path.read_bytes() for path in now) != sorted(data for _, data in before):
        raise Wrong("an image is lost, or there twice")
    predict(["--undo", str(target)])
    for path in taken.iterdir():
        path.rename(images / path.name)
    if sorted((path.name, path.read_bytes()) for path in images.iterdir()) != before:
        raise Wrong("not all images are back")


def no_links(*args: object, **options: object) -> None:
    """What another device says to a link."""
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def another_device(images: Path, taken: Path) -> list[Any]:
    """Files cannot be linked to from there."""
    return [mock.patch("os.link", no_links)]


def full_disk(images: Path, taken: Path) -> list[Any]:
    """Likewise, and there is room for four of them."""
    copy, calls = shutil.copyfileobj, itertools.count()

    def filling(source: Any, target: Any, length: int = 0) -> None:
        copy(source, target, length)
        if next(calls) >= 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return [*another_device(images, taken), mock.patch("shutil.copyfileobj", filling)]


def gone_meanwhile(images: Path, taken: Path) -> list[Any]:
    """Somebody takes a file just before it is moved."""
    link, calls = os.link, itertools.count()

    def taking(start: Path, target: Path, **options: Any) -> None:
        if next(calls) == 2:
            start.rename(taken / start.name)
        link(start, target, **options)

    return [mock.patch("os.link", taking)]


def not_to_be_removed(images: Path, taken: Path) -> list[Any]:
    """Files may be linked to, and not removed."""
    unlink = Path.unlink

    def refusing(path: Path, missing_ok: bool = False) -> None:
        if path.parent == images:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        unlink(path, missing_ok)

    return [mock.patch.object(Path, "unlink", refusing)]


MOVING: dict[str, Callable[[Path, Path], list[Any]]] = {
    "another device": another_device,
    "the disk is full": full_disk,
    "a file is gone": gone_meanwhile,
    "images that may not be removed": not_to_be_removed,
}
