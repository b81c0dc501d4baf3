"""Adapted models with random weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from coft.backbones.load import fingerprint, load_clip
from coft.images.reading import Decoding
from coft.images.views import Inputs
from coft.inference.model import AdaptedModel, BackboneRef
from coft.labelling.predictor import FinalClassifier, Predictor

CLASSES = ("tabby cat", "a/b: <c>", "boat")


def make_model(checkpoint: Path, **changes: Any) -> AdaptedModel:
    """A model of two classifiers with encoders that differ from the backbone."""
    clip_model: Any = load_clip(str(checkpoint))
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
        "backbone": BackboneRef(str(checkpoint), fingerprint(clip_model)),
        "inputs": inputs,
        "decoding": Decoding(64),
        "precision": "fp32",
        "predictor": Predictor(classifiers, "both-prompts", "softmax", temperature=1.5),
        "clip_model": clip_model,
        "about": {"trainer": "CoFT", "results": {}},
    }
    return AdaptedModel(**(parts | changes))
