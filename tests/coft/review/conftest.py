"""A finished run of a user's own images, whose CLIP has random weights, and its review."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from coft.backbones.load import fingerprint, load_clip
from coft.backbones.prompts import ensemble_features
from coft.engine.class_names import Classes, write_classes
from coft.inference.locate_model import FORMAT, sealed
from coft.report.image_facts import write_frozen
from coft.review.app import Review
from coft.review.draft import ClassesFile
from coft.review.reviewed import Reviewed, read_reviewed
from coft.review.serve import zero_shot_of
from coft.review.server import Server
from coft.review.zero_shot import ZeroShot
from tests.coft.report.runs import write_csv, write_images, write_run

TEMPLATES = ("a photo of a {}.", "an image of a {}.")
HOSTILE = "<img src=x onerror=alert(1)>"
CLASSES = Classes(
    ["forest", "sea", "hill", HOSTILE, "fog"],
    {"sea": ("ocean",)},
    {"forest": ["Many trees."], "sea": ["Water as far as one sees."]},
)
SHOWN = ("forest", "sea", "mountain", HOSTILE)  # what the images of each class in the end show; of fog there is none
EACH = 30


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Path:
    """Thirty images of each class but the last. Those of "hill" are mountains, and half of them of another kind."""
    folder = tmp_path_factory.mktemp("review")
    paths = write_images(folder / "images", [f"{i} <u>.png" for i in range(EACH * len(SHOWN))])
    return write_reviewed(folder / "run", paths, checkpoints["resnet"], folder / "images")


def write_reviewed(run: Path, paths: list[str], backbone: Path, images: Path, classes: Classes = CLASSES) -> Path:
    """Write what a run of CoFT leaves; images are as near to the names of `SHOWN` as CLIP could see them."""
    write_run(run, paths, classes.names, known=False, evidence=False)
    final = np.repeat(np.arange(len(SHOWN)), EACH)
    rows = [
        [path, classes.names[label], 0.9, 0.8, 0.7, "peer_a+peer_b"] for path, label in zip(paths, final, strict=True)
    ]
    write_csv(run / "pseudo_labels.csv", [["path", "class", "confidence", "p_clean_a", "p_clean_b", "kept_for"], *rows])
    write_csv(run / "predictions.csv", [["path", "class", "confidence"], *(row[:3] for row in rows)])
    clip_model: Any = load_clip(str(backbone))
    shown = ensemble_features(clip_model, SHOWN, TEMPLATES, classes.synonyms)
    source = torch.Generator().manual_seed(0)
    features = shown[final] + 0.01 * torch.randn(len(final), shown.shape[1], generator=source)
    features[2 * EACH : 2 * EACH + EACH // 2] += 0.05 * torch.randn(shown.shape[1], generator=source)
    text = ensemble_features(clip_model, classes.names, TEMPLATES, classes.synonyms)
    write_frozen(run, classes.names, F.normalize(features, dim=1), text)
    write_classes(run / "classes.txt", classes)
    origin = {"name": str(backbone), "fingerprint": fingerprint(clip_model), "frozen_stages": 0}
    (run / "model").mkdir(exist_ok=True)
    content = {"format": FORMAT, "classes": classes.names, "templates": TEMPLATES, "backbone": origin}
    (run / "model" / "model.json").write_text(json.dumps(sealed(content)))
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


@pytest.fixture(scope="module")
def read(run_folder: Path) -> tuple[Reviewed, ZeroShot]:
    reviewed = read_reviewed(run_folder)
    return reviewed, zero_shot_of(reviewed)


@pytest.fixture
def reviewing(run_folder: Path, read: tuple[Reviewed, ZeroShot], tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Serve reviews of the run; what they save is in the test's own folder."""
    servers = []

    def start() -> Server:
        server = Server(0)
        server.ended = threading.Event()
        file = ClassesFile(run_folder, tmp_path / "saved.txt")
        server.review = Review(*read, file, server.ended.set)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
