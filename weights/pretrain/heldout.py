"""Held-out drawings as data sets: icon sets and emoji vendors that are never used in pre-training."""

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from coft.core.files import replacing
from weights.pretrain.names import concept
from weights.pretrain.packages import install, of_role
from weights.pretrain.render import Shelf, shelves

TEST_SHARE = 0.4


@dataclass(frozen=True)
class Heldout:
    """One drawing of a held-out data set: uint8 ``[64, 64, 3]`` on white, its class name and its icon set."""

    pixels: np.ndarray
    classname: str
    source: str

    @property
    def digest(self) -> str:
        """Hash of the pixels, which determines the file name and the split."""
        return hashlib.sha256(self.pixels.tobytes()).hexdigest()[:16]


@cache
def _declared() -> dict[str, list[str]]:
    declared: dict[str, list[str]] = json.loads(Path(__file__).with_name("heldout.json").read_text())
    return declared


def classnames(name: str) -> list[str]:
    """Return the classes of ``icons`` or ``emoji`` by label."""
    return _declared()[name]


def development_sets() -> frozenset[str]:
    """Return the held-out icon sets on which the recipe was chosen."""
    return frozenset(_declared()["development_sets"])


def heldout_shelves(name: str, cache_dir: Path) -> list[Shelf]:
    """Return the drawings of the held-out packages whose name is a class of the data set."""
    packages = of_role(f"heldout_{name}")
    install(cache_dir, packages)
    classes = set(classnames(name))
    return [_select(shelf, classes) for shelf in shelves(packages, cache_dir)]


def _select(shelf: Shelf, classes: set[str]) -> Shelf:
    rows = [row for row, each in enumerate(shelf.names) if concept(each) in classes]
    colour = None if shelf.colour is None else shelf.colour[rows]
    return Shelf(shelf.source, [shelf.names[row] for row in rows], shelf.opacity[rows], colour)


def heldout(name: str, cache_dir: Path) -> list[Heldout]:
    """Return the pictures of ``icons`` or ``emoji`` without exact duplicates, sorted by digest."""
    items: dict[str, Heldout] = {}
    for shelf in heldout_shelves(name, cache_dir):
        for row, each in enumerate(shelf.names):
            item = Heldout(_on_white(shelf, row), concept(each), shelf.source)
            items.setdefault(item.digest, item)
    return [items[digest] for digest in sorted(items)]


def _on_white(shelf: Shelf, row: int) -> np.ndarray:
    opacity = shelf.opacity[row, 0][..., None] / 255
    paint = np.zeros((1, 1, 3)) if shelf.colour is None else shelf.colour[row].transpose(1, 2, 0)
    return (paint * opacity + 255 * (1 - opacity)).round().astype(np.uint8)


def build(name: str, root: Path, cache_dir: Path) -> Path:
    """Write a held-out data set: ``<root>/<name>/{train,test}/<hash>.png`` and ``split_<name>.json``.

    The split file has CoOp's layout: ``{"train": [[path, label, classname], ...], "val": [], "test": [...]}``.
    About 40 % of the pictures of every class are test images, chosen by the hash of their pixels.

    Returns:
        Path of the split file.
    """
    parts: dict[str, list[list[Any]]] = {"train": [], "val": [], "test": []}
    labels = {words: label for label, words in enumerate(classnames(name))}
    for part, item in _split(heldout(name, cache_dir)):
        relative = f"{part}/{item.digest}.png"
        path = root / name / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(item.pixels).save(path)
        parts[part].append([relative, labels[item.classname], item.classname])
    split_file = root / name / f"split_{name}.json"
    with replacing(split_file) as draft:
        draft.write_text(json.dumps(parts, indent=1), encoding="utf-8")
    return split_file


def _split(items: list[Heldout]) -> list[tuple[str, Heldout]]:
    classes = defaultdict(list)
    for item in items:
        classes[item.classname].append(item)
    parts = []
    for members in classes.values():
        num_test = round(TEST_SHARE * len(members))
        parts += [("test" if rank < num_test else "train", item) for rank, item in enumerate(members)]
    return parts
