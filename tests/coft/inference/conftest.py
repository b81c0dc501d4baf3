"""A model of random weights in a folder, as a run would leave it, and some pictures."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from coft.backbones.load import fingerprint, load_clip
from coft.images.reading import Decoding
from coft.images.views import Inputs
from coft.inference.model import AdaptedModel, Origin
from coft.inference.store import save
from coft.labelling.predictor import FinalClassifier, Predictor

CLASSES = ("tabby cat", "a/b: <c>", "boat")


def make_model(backbone: Path, **changes: Any) -> AdaptedModel:
    """A model of two classifiers whose encoders differ from the backbone's."""
    clip_model: Any = load_clip(str(backbone))
    source = torch.Generator().manual_seed(1)
    classifiers = {}
    for name in ("peer_a", "peer_b"):
        encoder = copy.deepcopy(clip_model.visual)
        for parameter in encoder.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=source))
        positive, negative = F.normalize(torch.randn(2, len(CLASSES), 32, generator=source), dim=-1)
        classifiers[name] = FinalClassifier(encoder.eval(), positive, positive - negative, 20.0)
    inputs = Inputs(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    parts = {
        "classes": CLASSES,
        "templates": ("a photo of a {}.",),
        "origin": Origin(str(backbone), fingerprint(clip_model)),
        "inputs": inputs,
        "decoding": Decoding(64),
        "precision": "fp32",
        "predictor": Predictor(classifiers, "joint", "coupled"),
        "clip_model": clip_model,
        "about": {"trainer": "CoFT", "results": {}},
    }
    return AdaptedModel(**(parts | changes))


@pytest.fixture(scope="session")
def model(checkpoints: dict[str, Path]) -> AdaptedModel:
    return make_model(checkpoints["resnet"])


@pytest.fixture(scope="session")
def finished_run(model: AdaptedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    save(model, folder / "model")
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Eleven images, three of them in a folder below, and four files that are none."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for number in range(11):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / ("more" if number > 7 else "") / f"{number:02}.png")
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    (folder / "empty.png").touch()
    (folder / "gone.png").symlink_to(folder / "nowhere")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes((folder / "00.png").read_bytes())
    return folder
