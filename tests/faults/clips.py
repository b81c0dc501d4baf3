"""Backbones that others made, times mutations: damaged, of another kind, with one part changed."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from coft.backbones.clip_file import SCHEMA as CLIP
from coft.backbones.embedded import SCHEMA as COMPACT
from coft.backbones.load import EMBEDDED, architecture, load_clip
from coft.backbones.open_clip_names import SCHEMA as CONFIG
from coft.backbones.prompts import template_features
from tests.open_clip_models import CONFIGS, HALF, write_model
from tests.scripts.archives import zipped

from .formats import Format
from .mutations import (
    DAMAGE,
    GARBAGE,
    PLACES,
    Mutation,
    Program,
    by_form,
    contents,
    flipped_member,
    flips,
    in_json,
    saving,
    without,
)
from .oracle import EITHER, REFUSED, Wrong
from .scene import Scene, tiny_clip

INFINITE = (float("nan"), float("inf"), -float("inf"))
SEEN = without(DAMAGE, "bytes after it", "a zero within")  # which checksums tell
OTHERS: dict[str, Any] = {  # which are no weights
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


OBJECTS = {f"holds {name}": saving(value) for name, value in OTHERS.items()}


def use(way: str, scene: Scene, path: Path) -> None:
    """Train, or evaluate, with what a flag names."""
    scene.train(*way.split(), str(path))


def copied_clip(scene: Scene, name: str = "own.pt") -> Path:
    return scene.file(name, scene.clip.read_bytes())


def sees(model: Any, images: torch.Tensor) -> None:
    """Let a CLIP see images, and texts in several scripts."""
    with torch.no_grad():
        features = model.visual(images), template_features(model, ["cat", "犬", "собака", "كلب"], "a {}.")
    if not all(torch.isfinite(part).all() for part in features):
        raise Wrong("its features are no numbers")


def load_backbone(scene: Scene, path: Path) -> None:
    """Load a backbone, and let it see an image and texts."""
    side = architecture(str(path)).resolution
    sees(load_clip(str(path)), torch.zeros(1, 3, side, side))


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
    clip, compact = tiny_clip().state_dict(), torch.load(EMBEDDED["embedded"], weights_only=True)
    formed = by_form(CLIP, clip, saving), by_form(COMPACT, compact, saving, 60)
    infinite = {
        f"{x} in {name}": saving({**clip, name: spoiled(clip[name], x)}) for name in CLIP.parts for x in INFINITE
    }
    scale = {"a scale of e^70": saving({**clip, "logit_scale": torch.tensor(70.0)})}
    openais: dict[str, Mutation] = {"as OpenAI's": lambda path: None}
    either = without(DAMAGE, *SEEN) | formed[0][EITHER]
    yield Format("checkpoints", "own.pt", copied_clip, load_backbone, refused | formed[0][REFUSED], either)
    yield Format("checkpoints", "small.pt", partial(copied_clip, name="small.pt"), load_backbone, *formed[1].values())
    yield Format("checkpoints", "RN50.pt", partial(copied_clip, name="RN50.pt"), load_openais, openais)
    yield Format("numbers", "own.pt", copied_clip, partial(use, "--backbone"), infinite, scale, names=("epoch",))


def open_clips() -> Iterator[Format]:
    """Configs of open_clip's models."""
    config = {"model_cfg": CONFIGS["vit"], "preprocess_cfg": HALF}
    formed = by_form(CONFIG, config, in_json, 200)
    refused = GARBAGE | PLACES | formed[REFUSED]
    either = DAMAGE | flips(10) | formed[EITHER]
    yield Format(
        "checkpoints",
        "open_clip_config.json",
        open_clip,
        load_other,
        refused,
        either,
        names=("open_clip", "class name"),
    )


def open_clip(scene: Scene) -> Path:
    """The config of a tiny model of open_clip, in a folder with its weights."""
    if not (scene.shared / "open_clip").is_dir():
        write_model(scene.shared / "open_clip", CONFIGS["vit"])
    return Path(shutil.copytree(scene.shared / "open_clip", scene.place / "model")) / "open_clip_config.json"


def load_other(scene: Scene, path: Path) -> None:
    """Load a model of open_clip, and let it see an image and texts."""
    name = f"open_clip:{path.parent}"
    kind, model = architecture(name), load_clip(name)
    sees(model, torch.zeros(1, 3, kind.resolution, kind.resolution))
    if min(kind.std) <= 0:
        raise Wrong(f"its images have a deviation of {kind.std}")
