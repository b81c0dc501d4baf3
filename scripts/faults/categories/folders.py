"""Output folders and caches that are damaged, full, or in the way."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from unittest import mock

import torch

from coft.backbones.feature_cache import cached
from coft.images import index
from coft.inference.store import load
from coft.report.write import write_report

from ..case import Case, Right, Wrong
from ..scene import Scene

CATEGORY = "folders"
REFUSED, FINE = Right.REFUSED, Right.FINE
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "zeroed": lambda data: bytes(len(data)),
    "text": lambda data: b"hello",
    "another byte": lambda data: (
        data[: len(data) // 3] + bytes([data[len(data) // 3] ^ 1]) + data[len(data) // 3 + 1 :]
    ),
    "not UTF-8": lambda data: b"\xff" + data[1:],
    "a list": lambda data: b"[1, 2]",
    "nested": lambda data: b"[" * 100_000,
}
OF_REPORT = (
    "summary.json",
    "pseudo_labels.csv",
    "predictions.csv",
    "metrics.csv",
    "log.txt",
    "config.yaml",
    "classes.txt",
)
OF_MODEL = ("model.json", "model.safetensors")


def cases(quick: bool) -> list[Case]:
    """All cases."""
    found = [
        Case(CATEGORY, f"report: {name} {how}", partial(reported, name=name, how=how), names=("run",))
        for name in OF_REPORT
        for how in DAMAGE
    ]
    found += [
        Case(CATEGORY, f"report without {name}", partial(reported, name=name, how="gone"), names=("run",))
        for name in OF_REPORT
    ]
    found += [
        Case(CATEGORY, f"model: {name} {how}", partial(used, name=name, how=how), names=("model",))
        for name in OF_MODEL
        for how in (*DAMAGE, "gone")
    ]
    found += [
        Case(CATEGORY, f"feature cache {how}", partial(features, how=how), FINE)
        for how in (*DAMAGE, "gone", "full", "in the way")
    ]
    found += [Case(CATEGORY, f"index {how}", partial(indexed, how=how), FINE) for how in (*DAMAGE, "full")]
    found += [
        Case(
            CATEGORY,
            f"a run goes on with {name} {how}",
            partial(resumed, name=name, how=how),
            names=("out", "run"),
            seconds=60,
        )
        for name in ("config.yaml", "metrics.csv", "resume.pth.tar", "peer_a/checkpoint")
        for how in (("emptied", "text") if quick else DAMAGE)
    ]
    others: dict[str, Callable[[Scene], object]] = {
        "after a mistake, the corrected command": corrected,
        "another experiment": another,
        "somebody's files": somebodys,
        "a drive that is full": full,
        "an output folder among the images": within,
    }
    rights = {"after a mistake, the corrected command": FINE}
    return found + [
        Case(CATEGORY, name, run, rights.get(name, REFUSED), ("out", "device"), 90) for name, run in others.items()
    ]


def damage(path: Path, how: str) -> None:
    """Damage a file."""
    if how == "gone":
        path.unlink(missing_ok=True)
    elif path.is_file():
        path.write_bytes(DAMAGE[how](path.read_bytes()))


def reported(scene: Scene, name: str, how: str) -> None:
    """Write the report of a run of which one file is damaged."""
    run = scene.copied_run()
    damage(run / name, how)
    write_report(run)


def used(scene: Scene, name: str, how: str) -> None:
    """Load a finished model of which one file is damaged."""
    run = scene.copied_run()
    damage(run / "model" / name, how)
    load(run)
    raise Wrong("a damaged model was loaded")


def features(scene: Scene, how: str) -> None:
    """Read features from a cache that is damaged: they are computed anew, and are the same."""
    right, folder = torch.arange(4000.0), scene.place / "cache"
    if how == "in the way":
        folder = scene.file("file", b"x") / "cache"
    if how != "full":
        cached(lambda: right, folder, "key")
    for path in folder.glob("*.pt"):
        damage(path, how)
    fails = mock.patch("torch.save", side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with fails if how == "full" else mock.patch("os.sep", os.sep):
        found = cached(lambda: right, folder, "key")
    if not torch.equal(found, right):
        raise Wrong("features are others than those that were computed")


def indexed(scene: Scene, how: str) -> None:
    """Index a folder whose remembered index is damaged."""
    with mock.patch.object(index, "CACHE", scene.place / "cache"):
        before = index.index_folder(scene.images)
        for path in (scene.place / "cache").iterdir():
            damage(path, how if how != "full" else "gone")
        fails = mock.patch("json.dumps", side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        with fails if how == "full" else mock.patch("os.sep", os.sep):
            if index.index_folder(scene.images) != before:
                raise Wrong("the index is another one")


def resumed(scene: Scene, name: str, how: str) -> None:
    """Give a command again after one of its files was damaged."""
    run = scene.copied_run()
    (run / "summary.json").unlink()
    damage(run / name, how)
    scene.train("--output-dir", str(run))


def corrected(scene: Scene) -> None:
    """Give a command with a mistake that is seen late, then the right one: the folder is free."""
    from coft.core.exit_codes import as_user_error

    for settings in (("OPTIM.LR", "1e30"), ("DATASET.UNLABELED", "val"), ("TRAIN.FORK", "nowhere")):
        try:
            scene.train(settings=settings)
        except Exception as error:
            if as_user_error(error) is None:
                raise
    ours = mock.patch("coft.method.pair.Pair.step", side_effect=ZeroDivisionError("a fault of ours"))
    with ours, suppress(ZeroDivisionError):
        scene.train(settings=("OPTIM.LR", "0.5"))
    scene.train()


def another(scene: Scene) -> None:
    """Begin another experiment where a finished one is."""
    run = scene.copied_run()
    scene.train("--output-dir", str(run), settings=("OPTIM.LR", "0.5"))


def somebodys(scene: Scene) -> None:
    """Begin an experiment where somebody has a log."""
    mine = scene.file("out/log.txt", b"mine")
    try:
        scene.train()
    finally:
        if mine.read_bytes() != b"mine":
            raise Wrong("somebody's file was changed")


def within(scene: Scene) -> None:
    """Have the output below the images: its pictures would be images of the next run."""
    photos = shutil.copytree(scene.images, scene.place / "photos")
    scene.train("--output-dir", str(photos / "out"), images=Path(photos))


def full(scene: Scene) -> None:
    """Write where there is no room."""
    failing = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with mock.patch("torch.save", side_effect=failing):
        scene.train()
