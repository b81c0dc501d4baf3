"""Files that the project writes and reads again, times mutations: checkpoints, run folders, caches."""

from __future__ import annotations

import hashlib
import json
import resource
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file, save_file

from coft.backbones.feature_cache import cached, form_of
from coft.cli.main import main as coft
from coft.images import index
from coft.inference.locate_model import FORMAT as MODEL_FORMAT
from coft.inference.locate_model import SCHEMA as MODEL
from coft.inference.sorting import FORMAT as SORTED
from coft.inference.undo_journal import FILE_ENTRY, HEAD

from .clips import INFINITE, OBJECTS, SEEN, spoiled, use
from .formats import Format
from .mutations import (
    ALIASES,
    DAMAGE,
    GARBAGE,
    NOT_THERE,
    Mutation,
    by_form,
    flipped_member,
    flips,
    in_torch,
    only,
    rewriting,
    saving,
    without,
)
from .oracle import EITHER, REFUSED, Wrong
from .scene import Scene, call


def in_all(mutate: Mutation, run: Path) -> None:
    for path in [*run.glob("peer_*/model.pth.tar-*"), run / "resume.pth.tar"]:
        mutate(path)


def checkpoints() -> Iterator[Format]:
    """Checkpoints and states of a run, all changed in the same way."""
    wrong = flips(12, flipped_member) | OBJECTS | without(GARBAGE, "nested deeply") | only(DAMAGE, "cut to 60%")
    infinite = {f"{value}": in_torch(partial(spoiled, value=value)) for value in INFINITE[:2]}
    for way in ("--eval-only --model-dir", "--resume"):
        for category, mutations in (("checkpoints", wrong), ("numbers", infinite)):
            refused = {f"{way} of {name}": partial(in_all, mutate) for name, mutate in mutations.items()}
            yield Format(category, "run", Scene.copied_run, partial(use, way), refused, names=("checkpoint",))


TABLES = ("pseudo_labels.csv", "predictions.csv", "metrics.csv")
OF_REPORT = ("summary.json", "log.txt", "config.yaml", "classes.txt", *TABLES)
OF_RESUMPTION = ("config.yaml", "metrics.csv", "resume.pth.tar", "peer_a/checkpoint")


def in_run(name: str) -> Callable[[Scene], Path]:
    return lambda scene: scene.copied_run() / name


def report(scene: Scene, path: Path) -> None:
    call(coft, "report", path.parent)


def predict(scene: Scene, path: Path) -> None:
    """Predict with a model: if it is taken, it predicts what it did."""
    before = scene.shared / "predicted.csv"
    if not before.exists():
        before.write_bytes(scene.predict(scene.run))
    if scene.predict(path.parent) != before.read_bytes():
        raise Wrong("a damaged model predicts otherwise")


def predict_anew(scene: Scene, path: Path) -> None:
    """Predict with a model that is another one: as many rows as there are images, of numbers."""
    rows = scene.predict(path.parent).splitlines()
    if len(rows) != 1 + len(list(scene.images.iterdir())) or b"nan" in b"".join(rows):
        raise Wrong(f"predicted {len(rows)} rows")


def described() -> tuple[dict[str, Mutation], dict[str, Mutation]]:
    """Mutations of a model's description, which change one part of it on purpose."""
    numbers = {"mean": [0.5] * 3, "std": [0.25] * 3}
    tree = {
        **{"format": MODEL_FORMAT, "classes": ["a", "b", "c"], "templates": ["a {}."], "precision": "fp32"},
        **{"backbone": {"name": "x", "fingerprint": "y", "frozen_stages": 0}, "inputs": {"size": 32, **numbers}},
        **{"decoding": {"enough": 0, "shorter": 0}, "encoders": ["none"], "score": "positive", "clean_rule": ""},
        **{"classifiers": [{"name": "x", "encoder": 0, "scale": 10.0}], "about": {}},
        **{"weights": {"file": "x", "sha256": "x"}},
    }
    made = by_form(MODEL, tree, lambda value: partial(with_part, tree, value), 120)
    return made[REFUSED], made[EITHER]


def with_part(tree: dict[str, Any], value: Any, path: Path) -> None:
    """Change in a model's description what a value changes in a tree of the same form."""
    content = {key: part for key, part in json.loads(path.read_text()).items() if key != "sha256"}
    if not isinstance(value, dict):
        path.write_text(json.dumps(value))
        return
    kept = {key: part for key, part in content.items() if key in value}
    path.write_text(json.dumps(kept | {key: part for key, part in value.items() if part is not tree.get(key)}))


def with_number(value: float, path: Path) -> None:
    """Have a number in the weights of a model whose checksums are right."""
    weights, description = path.parent / "model.safetensors", json.loads(path.read_text())
    save_file(spoiled(load_file(weights), value), weights, metadata={"format": description["format"]})
    del description["sha256"]  # as somebody does who changes it on purpose
    description["weights"]["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    path.write_text(json.dumps(description))


def go_on(scene: Scene, path: Path) -> None:
    """Give a command again; where it goes on, it comes to the same."""
    run = scene.place / "run"
    (run / "summary.json").unlink()
    scene.train(out=run)
    if (run / "predictions.csv").read_bytes() != (scene.run / "predictions.csv").read_bytes():
        raise Wrong("it comes to something else than the run did")


def journal(scene: Scene) -> Path:
    """The journal of images that were moved into folders of classes."""
    scene.predict(scene.run, scene.copied_images(), "--move", scene.place / "sorted")
    return next((scene.place / "sorted").glob("*.jsonl"))


def lines() -> dict[str, Mutation]:
    """Mutations of a journal: one of its lines is another."""
    put = {"from": "/photos/a.png", "to": "class/a.png", "size": 5, "time": 6}
    heads = by_form(HEAD, {"format": SORTED, "link": False}, partial(with_line, 0), 30)
    entries = by_form(FILE_ENTRY, put, partial(with_line, -1), 80)
    return {
        f"{kind} {name}": mutate
        for kind, made in (("head", heads), ("line", entries))
        for part in made.values()
        for name, mutate in part.items()
    }


def with_line(number: int, value: Any) -> Mutation:
    def change(data: bytes) -> bytes:
        rows = data.splitlines(keepends=True)
        rows[number] = json.dumps(value).encode() + b"\n"
        return b"".join(rows)

    return rewriting(change)


def some_may_stay(words: Sequence[str]) -> int:
    """The command, which is right to end with 1 where a file is not the one that was moved."""
    code = coft(words)
    return 0 if code == 1 else code


def undo(scene: Scene, path: Path) -> None:
    """Undo what a journal says: no image is lost."""
    try:
        call(some_may_stay, "predict", "--undo", path)
    finally:
        images = [place.read_bytes() for name in ("photos", "sorted") for place in (scene.place / name).rglob("*.png")]
        if sorted(images) != sorted(place.read_bytes() for place in scene.images.iterdir()):
            raise Wrong("an image is lost")


def left_files() -> Iterator[Format]:
    """Files of a finished run, by what reads them."""
    damaged = GARBAGE | DAMAGE | NOT_THERE | ALIASES
    for name in OF_REPORT:
        yield Format("folders", f"run/{name}", in_run(name), report, either=damaged, names=("run",))
    for name in OF_RESUMPTION:
        yield Format("folders", f"go on with {name}", in_run(name), go_on, either=damaged, names=("run",))
    for name in ("model.json", "model.safetensors"):
        refused, either = GARBAGE | SEEN | NOT_THERE | flips(3), only(DAMAGE, "bytes after it")
        yield Format("folders", name, in_run(f"model/{name}"), predict, refused, either, names=("model",))
    yield Format(
        "folders", "model.json", in_run("model/model.json"), predict_anew, *described(), names=("model", "backbone")
    )
    infinite = {f"{value} in its weights": partial(with_number, value) for value in INFINITE}
    yield Format("numbers", "model.json", in_run("model/model.json"), predict, infinite, names=("model",))
    yield Format("folders", "journal", journal, undo, either=damaged | lines(), names=("--undo", ".jsonl"))


def without_room(read: Callable[..., object], *args: Any) -> None:
    """Do something where no file can have a byte."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))
    try:
        read(*args)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def features(scene: Scene, folder: Path) -> list[list[float]]:
    return cached(lambda: torch.arange(4000.0).view(1000, 4), folder, "key", shape=(1000, 4)).tolist()


def image_index(scene: Scene, folder: Path) -> list[str]:
    with mock.patch.object(index, "CACHE", folder):
        return [entry.path + entry.problem for entry in index.index_folder(scene.images)]


def filled(read: Callable[[Scene, Path], object], scene: Scene) -> Path:
    """The file of a cache."""
    read(scene, scene.place / "cache")
    return next((scene.place / "cache").iterdir())


def read_again(read: Callable[[Scene, Path], object], scene: Scene, path: Path) -> None:
    """Read what is in a cache: it is what it was."""
    if read(scene, path.parent) != read(scene, scene.place / "another"):
        raise Wrong("it is something else than was kept")


def caches() -> Iterator[Format]:
    """Features and indices that are kept between runs."""
    damaged = GARBAGE | DAMAGE | NOT_THERE | flips(5)
    for read in (features, image_index):
        make, again = partial(filled, read), partial(read_again, read)
        others = by_form(form_of((1000, 4)), torch.zeros(1000, 4), saving, 60) if read is features else {REFUSED: {}}
        yield Format("folders", f"cache of {read.__name__}", make, again, fine=damaged | others[REFUSED])
        full = {"not there, and no room": NOT_THERE["not there"]}
        yield Format("folders", f"cache of {read.__name__}", make, partial(without_room, again), fine=full)
