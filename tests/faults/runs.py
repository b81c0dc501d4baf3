"""Files that the project writes and reads again, times mutations: backbones, checkpoints, run folders, caches."""

from __future__ import annotations

import hashlib
import json
import pickle
import resource
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file, save_file

from coft.backbones.feature_cache import cached
from coft.backbones.load import load_clip
from coft.cli.main import main as coft
from coft.images import index
from tests.scripts.archives import zipped

from .formats import Format
from .mutations import (
    DAMAGE,
    GARBAGE,
    LEAVES,
    NOT_THERE,
    PLACES,
    Mutation,
    Program,
    contents,
    flipped_member,
    flips,
    in_torch,
    only,
    without,
)
from .oracle import Wrong
from .scene import Scene, call

INFINITE = (float("nan"), float("inf"), -float("inf"))
SEEN = without(DAMAGE, "bytes after it", "a zero within")  # which checksums tell
TENSORS = (
    *("text_projection", "visual.conv1.weight", "visual.attnpool.positional_embedding", "token_embedding.weight"),
    *("ln_final.weight", "logit_scale", "positional_embedding"),
)
CHANGES: dict[str, Callable[[torch.Tensor], Any]] = {
    "of another shape": lambda x: x.new_zeros((*x.shape, 2)),
    "empty": lambda x: x.new_zeros((0,)),
    "of integers": lambda x: torch.zeros(x.shape, dtype=torch.int64),
    "complex": lambda x: torch.zeros(x.shape, dtype=torch.complex64),
    "a scalar": lambda x: torch.tensor(1.0),
    "a text": lambda x: "x",
}
OTHERS: dict[str, Any] = {  # which are no weights
    **{f"{leaf!r:.20}": leaf for leaf in LEAVES},
    "a tensor": torch.zeros(3),
    "a state of another model": torch.nn.Linear(2, 2).state_dict(),
    "numbers for names": {1: torch.zeros(2)},
    "a tuple": (torch.zeros(2), 1),
    "a state_dict that is a text": {"state_dict": "x"},
    "our format with nothing in it": {"format": "coft-clip/1"},
    "a text projection alone": {"text_projection": torch.zeros(2, 2)},
}


def spoiled(tree: Any, value: float) -> Any:
    """A tensor, or all tensors of a tree, with one other number."""
    if isinstance(tree, dict):
        return {key: spoiled(node, value) for key, node in tree.items()}
    if not torch.is_tensor(tree) or not tree.is_floating_point():
        return tree
    numbers = tree.reshape(-1).clone()
    numbers[:1] = value
    return numbers.reshape(tree.shape)


def saving(value: Any) -> Mutation:
    return in_torch(lambda state: value)


def with_tensor(name: str, change: Callable[[torch.Tensor], Any]) -> Mutation:
    return in_torch(lambda state: {**state, name: change(state[name])})


def without_tensor(name: str) -> Mutation:
    return in_torch(lambda state: {key: value for key, value in state.items() if key != name})


OBJECTS = {f"holds {name}": saving(value) for name, value in OTHERS.items()}


def use(way: str, scene: Scene, path: Path) -> None:
    """Train, or evaluate, with what a flag names."""
    scene.train(*way.split(), str(path))


def copied_clip(scene: Scene, name: str = "own.pt") -> Path:
    return scene.file(name, scene.clip.read_bytes())


def load_backbone(scene: Scene, path: Path) -> None:
    """Load a backbone, and let it see an image and a text."""
    model: Any = load_clip(str(path))
    with torch.no_grad():
        features = model.encode_image(torch.zeros(1, 3, 32, 32)), model.encode_text(torch.zeros(1, 77).long())
    if not all(torch.isfinite(part).all() for part in features):
        raise Wrong("its features are no numbers")


def load_openais(scene: Scene, path: Path) -> None:
    with mock.patch("coft.backbones.load.openai_file", lambda name: path):
        load_clip("RN50")


def torchscript(path: Path) -> None:
    """A TorchScript archive: it is a program, and not to be run unasked."""
    torch.jit.trace(torch.nn.Linear(1, 1), torch.ones(1)).save(str(path))


ARCHIVES = {
    "an archive of nothing": zipped({}),
    "an archive without a pickle": zipped({"a.txt": b"x"}),
    "an archive with a broken pickle": zipped({"archive/data.pkl": b"\x80\x02X"}),
    "an archive with a program": zipped({"a/data.pkl": pickle.dumps(Program(), 2), "a/version": b"3\n"}),
    "a TorchScript archive of nothing": zipped({"a/constants.pkl": b"", "a/data.pkl": b""}),
}


def backbones() -> Iterator[Format]:
    """Backbones: damaged, of another kind, with tensors that are none or have no numbers."""
    refused = GARBAGE | PLACES | SEEN | OBJECTS | flips(20, flipped_member) | contents(ARCHIVES)
    refused["a TorchScript archive"] = torchscript
    either, infinite = without(DAMAGE, *SEEN), dict[str, Mutation]()
    for name in TENSORS:
        either |= {f"{name} {how}": with_tensor(name, change) for how, change in CHANGES.items()}
        either[f"{name} missing"] = without_tensor(name)
        infinite |= {f"{value} in {name}": with_tensor(name, partial(spoiled, value=value)) for value in INFINITE}
    scale = {"a scale of e^70": with_tensor("logit_scale", lambda x: torch.tensor(70.0))}
    openais: dict[str, Mutation] = {"as OpenAI's": lambda path: None}
    yield Format("checkpoints", "own.pt", copied_clip, load_backbone, refused, either)
    yield Format("checkpoints", "RN50.pt", partial(copied_clip, name="RN50.pt"), load_openais, openais)
    yield Format("numbers", "own.pt", copied_clip, partial(use, "--backbone"), infinite, scale, names=("epoch",))


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


def undo(scene: Scene, path: Path) -> None:
    """Undo what a journal says: no image is lost."""
    try:
        call(coft, "predict", "--undo", path)
    finally:
        images = [place.read_bytes() for name in ("photos", "sorted") for place in (scene.place / name).rglob("*.png")]
        if sorted(images) != sorted(place.read_bytes() for place in scene.images.iterdir()):
            raise Wrong("an image is lost")


def left_files() -> Iterator[Format]:
    """Files of a finished run, by what reads them."""
    damaged = GARBAGE | DAMAGE | NOT_THERE
    for name in OF_REPORT:
        yield Format("folders", f"run/{name}", in_run(name), report, either=damaged, names=("run",))
    for name in OF_RESUMPTION:
        yield Format("folders", f"go on with {name}", in_run(name), go_on, either=damaged, names=("run",))
    for name in ("model.json", "model.safetensors"):
        refused, either = GARBAGE | SEEN | NOT_THERE | flips(3), only(DAMAGE, "bytes after it")
        yield Format("folders", name, in_run(f"model/{name}"), predict, refused, either, names=("model",))
    infinite = {f"{value} in its weights": partial(with_number, value) for value in INFINITE}
    yield Format("numbers", "model.json", in_run("model/model.json"), predict, infinite, names=("model",))
    yield Format("folders", "journal", journal, undo, either=damaged, names=("--undo", ".jsonl"))


def without_room(read: Callable[..., object], *args: Any) -> None:
    """Do something where no file can have a byte."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))
    try:
        read(*args)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def features(scene: Scene, folder: Path) -> list[float]:
    return cached(lambda: torch.arange(4000.0), folder, "key").tolist()


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
        yield Format("folders", f"cache of {read.__name__}", make, again, fine=damaged)
        full = {"not there, and no room": NOT_THERE["not there"]}
        yield Format("folders", f"cache of {read.__name__}", make, partial(without_room, again), fine=full)
