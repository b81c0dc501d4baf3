"""Backbones and checkpoints that are damaged, alien, or programs."""

from __future__ import annotations

import io
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from coft.backbones.load import load_clip

from ..case import Case, Right, Wrong
from ..scene import Scene

CATEGORY = "checkpoints"
REFUSED = Right.REFUSED


class Program:
    """A pickle that would run a program."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


OBJECTS: dict[str, Any] = {
    "a list": [1, 2],
    "a number": 5,
    "a text": "hello",
    "nothing": None,
    "a tensor": torch.zeros(3),
    "an empty state": {},
    "a state of another model": torch.nn.Linear(2, 2).state_dict(),
    "numbers for names": {1: torch.zeros(2)},
    "a state within a list": [{"state_dict": {}}],
    "a state_dict that is a text": {"state_dict": "x"},
    "a tuple": (torch.zeros(2), 1),
    "our format with nothing in it": {"format": "coft-clip/1"},
    "a text projection alone": {"text_projection": torch.zeros(2, 2)},
}
CHANGES: dict[str, Callable[[torch.Tensor], Any]] = {
    "of another shape": lambda x: x.new_zeros((*x.shape, 2)),
    "empty": lambda x: x.new_zeros((0,)),
    "of integers": lambda x: torch.zeros(x.shape, dtype=torch.int64),
    "complex": lambda x: torch.zeros(x.shape, dtype=torch.complex64),
    "a text": lambda x: "x",
    "missing": lambda x: None,
    "a scalar": lambda x: torch.tensor(1.0),
}
NAMES = (
    "text_projection",
    "visual.conv1.weight",
    "visual.attnpool.positional_embedding",
    "token_embedding.weight",
    "ln_final.weight",
    "logit_scale",
)


def cases(quick: bool) -> list[Case]:
    """All cases."""
    found = [
        Case(CATEGORY, f"backbone: {name}", partial(saved, value=value), REFUSED, ("own.pt",))
        for name, value in OBJECTS.items()
    ]
    found += [
        Case(CATEGORY, f"backbone: {name} {how}", partial(changed, name=name, change=change), names=("own.pt",))
        for name in NAMES
        for how, change in CHANGES.items()
    ]
    found += [
        Case(CATEGORY, f"backbone: bytes {seed}", partial(mutated, seed=seed), REFUSED, ("own.pt",))
        for seed in range(20)
    ]
    found += [
        Case(CATEGORY, f"backbone cut to {share:.0%}", partial(cut, share=share), REFUSED, ("own.pt",))
        for share in (0, 0.01, 0.5, 0.9, 0.999)
    ]
    files: dict[str, Callable[[Scene], bytes]] = {
        "text": lambda scene: b"hello",
        "zeros": lambda scene: bytes(10_000),
        "a zip of nothing": lambda scene: zipped({}),
        "a zip without a pickle": lambda scene: zipped({"a.txt": b"x"}),
        "a zip with a broken pickle": lambda scene: zipped({"archive/data.pkl": b"\x80\x02X"}),
        "a TorchScript archive of nothing": lambda scene: zipped({"a/constants.pkl": b"", "a/data.pkl": b""}),
        "a program": lambda scene: pickle.dumps(Program(str(scene.place / "ran"))),
        "a program in an archive": in_archive,
    }
    found += [
        Case(CATEGORY, f"backbone: {name}", partial(as_file, make=make), REFUSED, ("own.pt",))
        for name, make in files.items()
    ]
    found += [Case(CATEGORY, "backbone: a folder", folder, REFUSED, ("own.pt",))]
    found += [
        Case(CATEGORY, f"{flag} of {name}", partial(checkpoint, flag=flag, value=value), REFUSED, ("run",), 60)
        for flag in ("--eval-only", "--resume")
        for name, value in (list(OBJECTS.items())[:: 3 if quick else 1])
    ]
    found += [
        Case(CATEGORY, f"{flag} of bytes {seed}", partial(checkpoint, flag=flag, seed=seed), REFUSED, ("run",), 60)
        for flag in ("--eval-only", "--resume")
        for seed in range(2 if quick else 12)
    ]
    return [*found, Case(CATEGORY, "OpenAI's name, another content", of_openai, REFUSED, ("RN50.pt",))]


def load(path: Path) -> None:
    """Load a backbone, and let it see an image and a text."""
    model: Any = load_clip(str(path))
    with torch.no_grad():
        features = (
            model.encode_image(torch.zeros(1, 3, 32, 32)),
            model.encode_text(torch.zeros(1, 77, dtype=torch.int64)),
        )
    if not all(torch.isfinite(own).all() for own in features):
        raise Wrong("its features are no numbers")


def saved(scene: Scene, value: Any) -> None:
    """Load an object as a backbone."""
    torch.save(value, scene.place / "own.pt")
    load(scene.place / "own.pt")


def changed(scene: Scene, name: str, change: Callable[[torch.Tensor], Any]) -> None:
    """Load a CLIP of which one tensor is another."""
    state = torch.load(scene.clip, weights_only=True)
    state[name] = change(state[name])
    saved(scene, {key: value for key, value in state.items() if value is not None})


def mutated(scene: Scene, seed: int) -> None:
    """Load a CLIP of which one byte of a tensor is another."""
    load(scene.file("own.pt", flipped(scene.clip, seed)))


def flipped(path: Path, seed: int) -> bytes:
    """A file of torch's, one byte of one of its tensors changed."""
    data, source = bytearray(path.read_bytes()), random.Random(seed)
    with zipfile.ZipFile(path) as archive:
        members = [own for own in archive.infolist() if own.file_size > 64]
    own = source.choice(members)
    name, extra = (
        int.from_bytes(data[own.header_offset + at : own.header_offset + at + 2], "little") for at in (26, 28)
    )
    data[own.header_offset + 30 + name + extra + source.randrange(own.file_size)] ^= 1 << source.randrange(8)
    return bytes(data)


def cut(scene: Scene, share: float) -> None:
    """Load the beginning of a CLIP."""
    data = scene.clip.read_bytes()
    load(scene.file("own.pt", data[: int(share * len(data))]))


def zipped(members: dict[str, bytes]) -> bytes:
    """A zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def in_archive(scene: Scene) -> bytes:
    """Torch's archive with a program in it."""
    return zipped({"a/data.pkl": pickle.dumps(Program(str(scene.place / "ran")), 2), "a/version": b"3\n"})


def as_file(scene: Scene, make: Callable[[Scene], bytes]) -> None:
    """Load bytes as a backbone; none of them may run."""
    try:
        load(scene.file("own.pt", make(scene)))
    finally:
        if (scene.place / "ran").exists():
            raise Wrong("a backbone ran a program")


def folder(scene: Scene) -> None:
    """Load a folder."""
    (scene.place / "own.pt").mkdir()
    load(scene.place / "own.pt")


def checkpoint(scene: Scene, flag: str, value: Any = None, seed: int | None = None) -> None:
    """Evaluate, or go on from, a checkpoint that is none."""
    run = scene.copied_run()
    for path in [*run.glob("peer_*/model.pth.tar-*"), run / "resume.pth.tar"]:
        if seed is None:
            torch.save(value, path)
        else:
            path.write_bytes(flipped(path, seed))
    scene.train(*(("--eval-only", "--model-dir") if flag == "--eval-only" else ("--resume",)), str(run))


def of_openai(scene: Scene) -> None:
    """A file of OpenAI's name in the place where it is kept, with another content."""
    from coft.backbones import load as loading

    scene.file("RN50.pt", scene.clip.read_bytes())
    before = loading.openai_file
    loading.openai_file = lambda name: scene.place / "RN50.pt"
    try:
        load_clip("RN50")
    finally:
        loading.openai_file = before
