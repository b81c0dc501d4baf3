"""Export of the class vectors alone, for users who compute the image features themselves."""

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
    """Write `head.safetensors`: the vectors `weight` and `clean` (if any), with class names and scale as metadata.

    Args:
        model: The model.
        part: The classifier to export.
        folder: Folder of the export.
    """
    vectors = {"weight": part.weight, "clean": part.clean}
    tensors = {name: value.contiguous().clone() for name, value in vectors.items() if value is not None}
    metadata = {
        "format": "coft-head/1",
        "classes": json.dumps(model.classes),
        "logit_scale": repr(part.scale),
        "backbone": model.backbone.name,
        "backbone_fingerprint": model.backbone.fingerprint,
        "formula": "softmax(logit_scale * normalize(image_features) @ weight.T)",
    }
    save_file(tensors, folder / FILE, metadata=metadata)
    (folder / FILE).chmod(0o644)


def predict_with_frozen_encoder(model: AdaptedModel, part: Part, images: Tensor) -> Tensor:
    """Compute class probabilities with the exported vectors and the frozen backbone's own encoder. Shape (n, C)."""
    features = F.normalize(model.clip_model.visual(images), dim=-1)
    return (part.scale * features @ part.weight.t()).softmax(dim=1)
