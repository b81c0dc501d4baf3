"""A finished run on disk, made by the tests without training anything."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from coft.report.image_facts import write_frozen, write_peers

EPOCHS = [
    ["epoch", "stage", "accuracy_both", "coverage", "disagreement"],
    [0, "zero-shot", 60.0, "", ""],
    [1, "phase1", 70.0, 0.5, 0.1],
    [2, "phase2", 80.0, 0.9, 0.05],
]


def write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows(rows)


def write_images(folder: Path, names: Sequence[str], side: int = 24, seed: int = 0) -> list[str]:
    """Write noisy images, each of another colour. Returns their paths."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in names:
        pixels = rng.integers(0, 256, 3) // 2 + rng.integers(0, 128, (side, side, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name, format="PNG")
        paths.append(str(folder / name))
    return paths


def write_run(
    folder: Path,
    paths: Sequence[str],
    classes: Sequence[str],
    seed: int = 0,
    known: bool = True,
    evidence: bool = True,
    **summary: Any,
) -> Path:
    """Write what a run of CoFT on these images leaves, with classes drawn at random. Returns the folder."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    count = len(paths)
    final, before, other = (rng.integers(len(classes), size=count) for _ in range(3))
    sure = rng.random(count).round(6)
    (folder / "config.yaml").write_text("TRAINER:\n  NAME: CoFT\n")
    own = {"trainer": "CoFT", "dataset": "Folder", "backbone": "photo", "seconds": 75.0, "labels_used": 0}
    results = {"zero-shot": {"of": count, "accuracy_both": 60.0}, **({"accuracy_test": 80.0} if known else {})}
    (folder / "summary.json").write_text(json.dumps(own | {"results": results} | summary))
    (folder / "log.txt").write_text("Seed: 1\nWarning: fewer seeds than wanted\n[phase1] epoch 1\n")
    write_csv(folder / "metrics.csv", EPOCHS)
    kept = np.where(rng.random(count) < 0.7, "peer_a+peer_b", "")
    clean = rng.random((2, count)).round(6)
    rows = zip(paths, [classes[i] for i in final], sure, *clean, kept, strict=True)
    write_csv(
        folder / "pseudo_labels.csv", [["path", "class", "confidence", "p_clean_a", "p_clean_b", "kept_for"], *rows]
    )
    predicted = zip(paths, [classes[i] for i in final], sure, strict=True)
    write_csv(folder / "predictions.csv", [["path", "class", "confidence"], *predicted])
    if known:
        right = zip(paths, [classes[i] for i in other], [classes[i] for i in before], strict=True)
        write_csv(folder / "test_predictions.csv", [["image", "class", "phase1"], *right])
    if evidence:
        centres = rng.normal(size=(len(classes), 16))
        features = centres[before] + 0.3 * rng.normal(size=(count, 16))
        unit = [torch.nn.functional.normalize(torch.from_numpy(x).float(), dim=1) for x in (features, centres)]
        write_frozen(folder, classes, *unit)
        write_peers(folder, {"peer_a": torch.from_numpy(final), "peer_b": torch.from_numpy(other)})
    return folder
