"""Split files of data sets: mutated, and at odds with the classes or the folder."""

from __future__ import annotations

import json
import random
from functools import partial
from types import SimpleNamespace
from typing import Any

from datasets.base import DeclaredDataset, read_split

from ..case import Case, Right
from ..scene import Scene

CATEGORY = "splits"
ROWS = [["a.png", 0, "cat"], ["b.png", 1, "dog"]]
REFUSED = Right.REFUSED
BAD_ROWS: dict[str, Any] = {
    "a label beyond the classes": ["a.png", 7, "bird"],
    "a negative label": ["a.png", -2, "cat"],
    "a huge label": ["a.png", 10**30, "cat"],
    "a label that is true": ["a.png", True, "cat"],
    "a label with a fraction": ["a.png", 1.7, "dog"],
    "a label as text": ["a.png", "1", "dog"],
    "a label that is NaN": ["a.png", float("nan"), "dog"],
    "no label": ["a.png", None, "dog"],
    "two entries": ["a.png", 0],
    "four entries": ["a.png", 0, "cat", 1],
    "a number for a path": [5, 0, "cat"],
    "a path that leads out": ["../a.png", 0, "cat"],
    "a path that leads out later": ["x/../../a.png", 0, "cat"],
    "an absolute path": ["/etc/passwd", 0, "cat"],
    "a path to nothing": ["none.png", 0, "cat"],
    "an empty path": ["", 0, "cat"],
    "a path with a zero": ["a\0.png", 0, "cat"],
    "a path too long": ["x" * 5000, 0, "cat"],
    "a text": "a.png",
    "nothing": None,
    "a name that is a number": ["a.png", 0, 5],
    "half a character": ["\ud800.png", 0, "cat"],
}
TEXTS = {
    "empty": "",
    "a list": "[]",
    "a text": '"x"',
    "no test": json.dumps({"train": ROWS, "val": []}),
    "train is an object": json.dumps({"train": {}, "val": 5, "test": None}),
    "nested deeply": "[" * 100_000,
    "YAML": "train: []",
    "nothing in it": json.dumps({"train": [], "val": [], "test": []}),
    "no training image": json.dumps({"train": [], "val": [], "test": [["x", 0, "cat"]]}),
}


def cases(quick: bool) -> list[Case]:
    """All cases."""
    found = [
        Case(
            CATEGORY,
            f"{name} in {part}",
            partial(read, text=with_row(row, part)),
            REFUSED,
            ("split.json", "image"),
        )
        for name, row in BAD_ROWS.items()
        for part in ("train", "test")
    ]
    found += [
        Case(
            CATEGORY,
            name,
            partial(read, text=text),
            Right.EITHER if "training" in name else REFUSED,
            ("split.json", "Own", "train", "x"),
        )
        for name, text in TEXTS.items()
    ]
    plain = with_row(ROWS[0], "val")
    found.append(Case(CATEGORY, "as it should be", partial(read, text=plain), Right.FINE))
    return found + [
        Case(
            CATEGORY,
            f"other letters {seed}",
            partial(read, text=mutated(plain, seed)),
            names=("split.json", "image", "class"),
        )
        for seed in range(40)
    ]


def with_row(row: Any, part: str) -> str:
    """A split with one more row."""
    parts: dict[str, list[Any]] = {"train": [*ROWS], "val": [], "test": [*ROWS]}
    parts[part] = [*parts[part], row]
    return json.dumps(parts)


def mutated(text: str, seed: int) -> str:
    """A text with a few other letters."""
    source, letters = random.Random(seed), list(text)
    for _ in range(1 + seed % 3):
        letters[source.randrange(len(letters))] = source.choice('{}[]",:0x-\\ \0')
    return "".join(letters)


def read(scene: Scene, text: str) -> None:
    """Read a split, and make a data set of it."""
    for name in ("a.png", "b.png"):
        scene.file(f"images/{name}", b"")
    scene.file("a.png", b"")
    train, val, test = read_split(scene.file("split.json", text), scene.place / "images")
    own = SimpleNamespace(NUM_SHOTS=-1, SUBSAMPLE_CLASSES="all", UNLABELED="train", NUM_UNLABELED=0, NUM_TEST=0)
    DeclaredDataset(SimpleNamespace(DATASET=own, SEED=1), classnames=("cat", "dog"), train=train, val=val, test=test)
