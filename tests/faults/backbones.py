"""Backbone files: damaged, of another format, or with one tensor changed."""

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
from coft.backbones.embedded import SCHEMA as EMBEDDED_CLIP
from coft.backbones.load import EMBEDDED, architecture, load_clip
from coft.backbones.open_clip_names import SCHEMA as OPEN_CLIP_CONFIG
from coft.backbones.prompts import template_features
from tests.conftest import make_clip
from tests.open_clip_models import CONFIGS, HALF, write_model
from tests.scripts.archives import zipped

from .formats import Format
from .mutations import (
    CHECKSUMMED,
    DAMAGE,
    INVALID,
    Exploit,
    contents,
    flip_bit_of_member,
    flips,
    from_form,
    json_content,
    torch_content,
    without,
)
from .verdict import EITHER, REFUSED, WrongResult
from .workspace import Workspace

NON_FINITE = (float("nan"), float("inf"), -float("inf"))
WRONG_OBJECTS = {
    name: torch_content(value)
    for name, value in {
        "a tensor": torch.zeros(3),
        "weights of another model": torch.nn.Linear(2, 2).state_dict(),
        "numbers as names": {1: torch.zeros(2)},
        "a tuple": (torch.zeros(2), 1),
        "a text as state_dict": {"state_dict": "x"},
        "our format without content": {"format": "coft-clip/1"},
        "a text projection alone": {"text_projection": torch.zeros(2, 2)},
    }.items()
}
WRONG_ARCHIVES = {
    "an empty archive": zipped({}),
    "an archive without a pickle": zipped({"a.txt": b"x"}),
    "an archive with a broken pickle": zipped({"archive/data.pkl": b"\x80\x02X"}),
    "an archive with a malicious pickle": zipped({"a/data.pkl": pickle.dumps(Exploit(), 2), "a/version": b"3\n"}),
    "an empty TorchScript archive": zipped({"a/constants.pkl": b"", "a/data.pkl": b""}),
}


def with_number(tree: Any, value: float) -> Any:
    """Return a tensor, or all tensors of a tree, with the first number replaced."""
    if isinstance(tree, dict):
        return {key: with_number(node, value) for key, node in tree.items()}
    if not torch.is_tensor(tree) or not tree.is_floating_point():
        return tree
    numbers = tree.reshape(-1).clone()
    numbers[:1] = value
    return numbers.reshape(tree.shape)


def train_with(workspace: Workspace, path: Path, flags: str) -> None:
    """Train or evaluate with a path as the value of the last flag."""
    workspace.train(*flags.split(), str(path))


def copy_clip(workspace: Workspace, name: str = "own.pt") -> Path:
    return workspace.write(name, workspace.clip.read_bytes())


def check_features(model: Any, images: torch.Tensor) -> None:
    """Check that a CLIP computes finite features of images, and of texts in several scripts."""
    with torch.no_grad():
        features = model.visual(images), template_features(model, ["cat", "犬", "собака", "كلب"], "a {}.")
    if not all(torch.isfinite(part).all() for part in features):
        raise WrongResult("features are not finite")


def load_backbone(workspace: Workspace, path: Path) -> None:
    side = architecture(str(path)).resolution
    check_features(load_clip(str(path)), torch.zeros(1, 3, side, side))


def load_as_openai(workspace: Workspace, path: Path) -> None:
    """Load a file in place of OpenAI's RN50, whose SHA-256 is known."""
    with mock.patch("coft.backbones.load.openai_file", lambda name: path):
        load_clip("RN50")


def save_torchscript(path: Path) -> None:
    """Save a TorchScript archive, which is a program and must not run without consent."""
    torch.jit.trace(torch.nn.Linear(1, 1), torch.ones(1)).save(str(path))


def backbones() -> Iterator[Format]:
    """Backbones in our formats and OpenAI's."""
    clip = make_clip(vit=False).state_dict()
    generated = from_form(CLIP, clip, torch_content)
    refused = {**INVALID, **CHECKSUMMED, **WRONG_OBJECTS, **flips(20, flip_bit_of_member)}
    refused |= {**contents(WRONG_ARCHIVES), **generated[REFUSED], "a TorchScript archive": save_torchscript}
    either = {**without(DAMAGE, *CHECKSUMMED), **generated[EITHER]}
    yield Format("checkpoints", "own.pt", copy_clip, load_backbone, refused, either)

    embedded = from_form(EMBEDDED_CLIP, torch.load(EMBEDDED["embedded"], weights_only=True), torch_content, 60)
    yield Format(
        "checkpoints",
        "small.pt",
        partial(copy_clip, name="small.pt"),
        load_backbone,
        embedded[REFUSED],
        embedded[EITHER],
    )
    unchanged = {"as OpenAI's": lambda path: None}
    yield Format("checkpoints", "RN50.pt", partial(copy_clip, name="RN50.pt"), load_as_openai, unchanged)

    non_finite = {
        f"{value} in {name}": torch_content({**clip, name: with_number(clip[name], value)})
        for name in CLIP.parts
        for value in NON_FINITE
    }
    scale = {"a scale of e^70": torch_content({**clip, "logit_scale": torch.tensor(70.0)})}
    train = partial(train_with, flags="--backbone")
    yield Format("non-finite", "own.pt", copy_clip, train, non_finite, scale, input_names=("epoch",))


def open_clip_configs() -> Iterator[Format]:
    """Configs of open_clip's models."""
    config = {"model_cfg": CONFIGS["vit"], "preprocess_cfg": HALF}
    generated = from_form(OPEN_CLIP_CONFIG, config, json_content, 200)
    refused = {**INVALID, **generated[REFUSED]}
    either = {**DAMAGE, **flips(10), **generated[EITHER]}
    name, names = "open_clip_config.json", ("open_clip", "class name")
    yield Format("checkpoints", name, copy_open_clip, load_open_clip, refused, either, input_names=names)


def copy_open_clip(workspace: Workspace) -> Path:
    """Copy a tiny model of open_clip. Returns its config."""
    if not (workspace.shared / "open_clip").is_dir():
        write_model(workspace.shared / "open_clip", CONFIGS["vit"])
    return Path(shutil.copytree(workspace.shared / "open_clip", workspace.folder / "model")) / "open_clip_config.json"


def load_open_clip(workspace: Workspace, path: Path) -> None:
    name = f"open_clip:{path.parent}"
    info = architecture(name)
    check_features(load_clip(name), torch.zeros(1, 3, info.resolution, info.resolution))
    if min(info.std) <= 0:
        raise WrongResult(f"images are normalized with a deviation of {info.std}")
