"""Folders of finished runs, written without training."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from coft.core.table import Table
from coft.report.image_facts import write_frozen, write_peers

HOSTILE = [  # class names that must be escaped
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "new\nline </title><b>",
    "'{{ 7*7 }}{% raw %}",
    "NA",
    "\u202ereversed &amp; é",
]
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
    """Write noisy images of different colours. Returns their paths."""
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
    tested: bool = True,
    evidence: bool = True,
    **summary: Any,
) -> Path:
    """Write the files of a CoFT run with random classes. Returns the folder."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    count = len(paths)
    final_labels, first_labels, other_labels = (rng.integers(len(classes), size=count) for _ in range(3))
    confidence = rng.random(count).round(6)
    (folder / "config.yaml").write_text("TRAINER:\n  NAME: CoFT\n")
    settings = {"trainer": "CoFT", "dataset": "Folder", "backbone": "photo", "seconds": 75.0, "labels_used": 0}
    results = {"zero-shot": {"of": count, "accuracy_both": 60.0}, **({"accuracy_test": 80.0} if tested else {})}
    (folder / "summary.json").write_text(json.dumps(settings | {"results": results} | summary))
    (folder / "log.txt").write_text("Seed: 1\nWarning: fewer seeds than wanted\n[phase1] epoch 1\n")
    write_csv(folder / "metrics.csv", EPOCHS)
    kept = np.where(rng.random(count) < 0.7, "peer_a+peer_b", "")
    p_clean = rng.random((2, count)).round(6)
    label_rows = zip(paths, [classes[i] for i in final_labels], confidence, *p_clean, kept, strict=True)
    write_csv(
        folder / "pseudo_labels.csv",
        [["path", "class", "confidence", "p_clean_a", "p_clean_b", "kept_for"], *label_rows],
    )
    prediction_rows = zip(paths, [classes[i] for i in final_labels], confidence, strict=True)
    write_csv(folder / "predictions.csv", [["path", "class", "confidence"], *prediction_rows])
    if tested:
        test_rows = zip(paths, [classes[i] for i in other_labels], [classes[i] for i in first_labels], strict=True)
        write_csv(folder / "test_predictions.csv", [["image", "class", "phase1"], *test_rows])
    if evidence:
        centres = rng.normal(size=(len(classes), 16))
        features = centres[first_labels] + 0.3 * rng.normal(size=(count, 16))
        unit = [torch.nn.functional.normalize(torch.from_numpy(x).float(), dim=1) for x in (features, centres)]
        write_frozen(folder, classes, Table.of(unit[0]), unit[1], scale=10.0)
        write_peers(folder, {"peer_a": torch.from_numpy(final_labels), "peer_b": torch.from_numpy(other_labels)})
    return folder
