"""Inputs of the trials: small CLIPs under OpenAI's file names, and a subset of scikit-learn's digits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from clip import clip
from clip.model import CLIP, convert_weights
from PIL import Image
from sklearn.datasets import load_digits

SIZE = 32  # pixels
NARROW, WIDE = "ViT-B/32", "ViT-B/16"  # the wide one has ViT-B/16's widths, which MaPLe hard-codes
WIDTHS = {NARROW: (64, 64), WIDE: (768, 512)}  # widths of the image and the text encoder
CLASSNAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEST_IMAGES = 540  # 30 % of the digits, from which the test images are taken
PER_CLASS = {"train": 20, "val": 4, "test": 10}


def make_clips(folder: Path) -> None:
    """Write a state dict for each backbone, with random weights, two layers per encoder, and fp16 as in OpenAI's."""
    folder.mkdir(parents=True)
    for name, (image, text) in WIDTHS.items():
        torch.manual_seed(0)
        model = CLIP(64, SIZE, 2, image, SIZE // 4, 77, 49408, text, text // 64, 2)
        convert_weights(model)
        torch.save(model.state_dict(), folder / clip._MODELS[name].split("/")[-1])


def make_digits(root: Path) -> None:
    """Write a few digits of each class below `root`, and a split file in CoOp's format."""
    data = load_digits()
    images = root / "digits" / "images"
    images.mkdir(parents=True)
    held_out = np.zeros(len(data.target), bool)
    held_out[np.random.default_rng(0).permutation(len(data.target))[:TEST_IMAGES]] = True
    split: dict[str, list[tuple[str, int, str]]] = {part: [] for part in PER_CLASS}
    for label, classname in enumerate(CLASSNAMES):
        of_class = data.target == label
        rest, test = np.flatnonzero(of_class & ~held_out), np.flatnonzero(of_class & held_out)
        train, val = PER_CLASS["train"], PER_CLASS["val"]
        chosen = {"train": rest[:train], "val": rest[train : train + val], "test": test[: PER_CLASS["test"]]}
        for part, indices in chosen.items():
            for index in indices:
                name = f"digit_{index:04d}.png"
                Image.fromarray(np.rint(data.images[index] * (255 / 16)).astype(np.uint8)).save(images / name)
                split[part].append((name, label, classname))
    (images.parent / "split_zhou_Digits.json").write_text(json.dumps(split), encoding="utf-8")
