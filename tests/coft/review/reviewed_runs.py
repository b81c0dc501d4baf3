"""Runs that can be reviewed, written without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml

from coft.backbones.load import fingerprint, load_clip
from coft.backbones.prompts import ensemble_features
from coft.core.table import Table
from coft.engine.class_names import Classes, write_classes
from coft.inference.locate_model import FORMAT, with_checksum
from coft.report.image_facts import write_frozen
from tests.coft.report.runs import write_csv, write_run

TEMPLATES = ("a photo of a {}.", "an image of a {}.")
HOSTILE = "<img src=x onerror=alert(1)>"
CLASSES = Classes(
    ["forest", "sea", "hill", HOSTILE, "fog"],
    {"sea": ("ocean",)},
    {"forest": ["Many trees."], "sea": ["Water as far as one sees."]},
)
SHOWN = ("forest", "sea", "mountain", HOSTILE)  # content of the images of each class; "fog" has none
PER_CLASS = 30


def write_reviewed(run: Path, paths: list[str], backbone: Path, images: Path, classes: Classes = CLASSES) -> Path:
    """Write the files of a CoFT run whose image features are near the text features of `SHOWN`."""
    write_run(run, paths, classes.names, tested=False, evidence=False)
    final = np.repeat(np.arange(len(SHOWN)), PER_CLASS)
    rows = [
        [path, classes.names[label], 0.9, 0.8, 0.7, "peer_a+peer_b"] for path, label in zip(paths, final, strict=True)
    ]
    write_csv(run / "pseudo_labels.csv", [["path", "class", "confidence", "p_clean_a", "p_clean_b", "kept_for"], *rows])
    write_csv(run / "predictions.csv", [["path", "class", "confidence"], *(row[:3] for row in rows)])
    clip_model: Any = load_clip(str(backbone))
    shown = ensemble_features(clip_model, SHOWN, TEMPLATES, classes.synonyms)
    source = torch.Generator().manual_seed(0)
    features = shown[final] + 0.01 * torch.randn(len(final), shown.shape[1], generator=source)
    features[2 * PER_CLASS : 2 * PER_CLASS + PER_CLASS // 2] += 0.05 * torch.randn(shown.shape[1], generator=source)
    text = ensemble_features(clip_model, classes.names, TEMPLATES, classes.synonyms)
    write_frozen(run, classes.names, Table.of(F.normalize(features, dim=1)), text, scale=100.0)
    write_classes(run / "classes.txt", classes)
    origin = {"name": str(backbone), "fingerprint": fingerprint(clip_model), "frozen_stages": 0}
    (run / "model").mkdir(exist_ok=True)
    content = {"format": FORMAT, "classes": classes.names, "templates": TEMPLATES, "backbone": origin}
    content |= {"inputs": {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}, "decoding": {}, "precision": "fp32"}
    content |= {"encoders": ["none"], "classifiers": [{"name": "peer_a", "encoder": 0, "scale": 10.0}], "about": {}}
    content |= {"score": "positive", "clean_rule": "", "weights": {"file": "model.safetensors", "sha256": ""}}
    (run / "model" / "model.json").write_text(json.dumps(with_checksum(content)))
    config = {
        "OUTPUT_DIR": str(run),
        "SEED": 3,
        "DATASET": {"NAME": "Folder", "IMAGES": str(images), "CLASSES": ", ".join(classes.names)},
        "MODEL": {"BACKBONE": {"NAME": str(backbone)}},
        "TRAINER": {"NAME": "CoFT", "COFT": {"PHASE1": {"EPOCHS": 7}}},
        "INPUT": {"SIZE": [32, 32]},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run
