"""Vectors of the classes alone, for those who have the image features."""

from __future__ import annotations

import json
from pathlib import Path

import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from coft.inference.model import AdaptedModel

from .merging import Part

FILE = "head.safetensors"


def write_head(model: AdaptedModel, part: Part, folder: Path) -> None:
    """Write `head.safetensors`: weight, and clean where there is one; names and scale are in its metadata."""
    vectors = {"weight": part.weight, "clean": part.clean}
    tensors = {name: value.contiguous().clone() for name, value in vectors.items() if value is not None}
    words = {
        "format": "coft-head/1",
        "classes": json.dumps(model.classes),
        "logit_scale": repr(part.scale),
        "backbone": model.origin.name,
        "backbone_fingerprint": model.origin.fingerprint,
        "formula": "softmax(logit_scale * normalize(image_features) @ weight.T)",
    }
    save_file(tensors, folder / FILE, metadata=words)
    (folder / FILE).chmod(0o644)


def with_frozen(model: AdaptedModel, part: Part, images: Tensor) -> Tensor:
    """Probabilities by the vectors and the backbone's own encoder. Shape (n, C)."""
    features = F.normalize(model.clip_model.visual(images), dim=-1)
    return (part.scale * features @ part.weight.t()).softmax(dim=1)
