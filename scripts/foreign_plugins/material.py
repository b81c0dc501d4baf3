"""What the plugins are run on: small CLIPs under OpenAI's file names, and a part of the digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from clip import clip
from clip.model import CLIP, convert_weights

from datasets.digits import write_digits

SIZE = 32  # pixels
NARROW, WIDE = "ViT-B/32", "ViT-B/16"  # the wide one has ViT-B/16's widths, which MaPLe has written into its code
WIDTHS = {NARROW: (64, 64), WIDE: (768, 512)}  # of the image and the text encoder
PER_CLASS = {"train": 20, "val": 4, "test": 10}


def make_clips(folder: Path) -> None:
    """Write a state dict for each backbone: random weights, two layers in each encoder, fp16 as OpenAI's."""
    folder.mkdir(parents=True)
    for name, (image, text) in WIDTHS.items():
        torch.manual_seed(0)
        model = CLIP(64, SIZE, 2, image, SIZE // 4, 77, 49408, text, text // 64, 2)
        convert_weights(model)
        torch.save(model.state_dict(), folder / clip._MODELS[name].split("/")[-1])


def make_digits(root: Path) -> None:
    """Write scikit-learn's digits below `root` and a split file with a few of each class."""
    folder = root / "digits"
    write_digits(folder)
    split = json.loads((folder / "split_digits.json").read_text(encoding="utf-8"))
    train, val = PER_CLASS["train"], PER_CLASS["val"]
    few = {
        "train": first_of_each(split["train"], 0, train),
        "val": first_of_each(split["train"], train, train + val),
        "test": first_of_each(split["test"], 0, PER_CLASS["test"]),
    }
    (folder / "split_zhou_Digits.json").write_text(json.dumps(few), encoding="utf-8")


def first_of_each(rows: list[Any], start: int, stop: int) -> list[Any]:
    """Rows of (path, label, class name): those from `start` to `stop` of each class, ordered by class."""
    classes: dict[int, list[Any]] = {}
    for row in rows:
        classes.setdefault(row[1], []).append(row)
    return [row for label in sorted(classes) for row in classes[label][start:stop]]
