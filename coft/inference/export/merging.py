"""The classifiers of an export: both peers, one of them, or the average of their weights; their vectors as a file."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from coft.backbones.normed_convolution import separate_norms
from coft.core.errors import UserError
from coft.inference.model import AdaptedModel
from coft.labelling.classifier import SCORES
from coft.labelling.losses import log_mean
from coft.labelling.predictor import FinalClassifier

from .export_options import BOTH

HEAD_FILE = "head.safetensors"


@dataclass(frozen=True)
class Part:
    """Classifier in exported form, which computes the softmax of `scale * features @ weight.T`.

    Attributes:
        encoder: Image encoder on the CPU, fp32. Low-rank updates are merged into its weights.
        weight: Class vectors. Shape (C, embed_dim).
        clean: Class vectors of the clean log-odds d. Shape (C, embed_dim); None without negative prompts.
        scale: CLIP's logit scale.
    """

    encoder: nn.Module
    weight: Tensor
    clean: Tensor | None
    scale: float


def parts_of(model: AdaptedModel, peers: str) -> list[Part]:
    """Return the classifiers to export.

    Args:
        model: The model, on the CPU in fp32.
        peers: One of `PEERS`. `AVERAGE` and `BOTH` are the same for a model with a single classifier.

    Raises:
        UserError: If the model has no such peer, or if its peers cannot be averaged: they are of two checkpoints.
    """
    score = model.predictor.score
    parts = [part_of(each, score, model.visual_of(each.encoder)) for each in model.predictor.classifiers.values()]
    if peers in ("a", "b"):
        number = "ab".index(peers)
        if number >= len(parts):
            raise UserError(f"--peers {peers}: the model is a single one; leave it out")
        return [parts[number]]
    if peers == BOTH or len(parts) == 1:
        return parts
    if model.two_checkpoints:
        raise UserError("the peers are of two checkpoints, which have no average; name one with --peers a, or b")
    return [average(parts)]


def part_of(classifier: FinalClassifier, score: str, visual: nn.Module) -> Part:
    """Convert a classifier to its exported form.

    One vector per class is enough: l+, d and the score are linear in the features.

    Args:
        classifier: The classifier.
        score: A key of `SCORES`.
        visual: The backbone's image encoder.
    """
    clean = torch.zeros_like(classifier.positive) if classifier.clean is None else classifier.clean
    weight = SCORES[score](classifier.positive, clean)
    return Part(merge_low_rank(classifier.encoder, visual), weight, classifier.clean, classifier.scale)


@torch.no_grad()
def merge_low_rank(encoder: nn.Module, visual: nn.Module) -> nn.Module:
    """Return a copy of an encoder with its low-rank updates merged into the weights, and separate batch norms.

    Args:
        encoder: An encoder made from `visual`.
        visual: The backbone's encoder.
    """
    if not any(parametrize.is_parametrized(module) for module in encoder.modules()):
        return separate_norms(copy.deepcopy(encoder)).eval().requires_grad_(False)
    plain_encoder = copy.deepcopy(visual)
    plain_encoder.load_state_dict({name: reduce(getattr, name.split("."), encoder) for name in visual.state_dict()})
    return separate_norms(plain_encoder).eval().requires_grad_(False)


@torch.no_grad()
def average(parts: Sequence[Part]) -> Part:
    """Average classifiers weight by weight. Their encoders must have started from the same backbone."""
    encoder, states = copy.deepcopy(parts[0].encoder), [part.encoder.state_dict() for part in parts]
    means = {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(value.dtype)
        for name, value in states[0].items()
    }
    encoder.load_state_dict(means)
    scale = sum(part.scale for part in parts) / len(parts)
    clean = [part.scale / scale * part.clean for part in parts if part.clean is not None]
    return Part(
        encoder,
        torch.stack([part.scale / scale * part.weight for part in parts]).mean(dim=0),
        torch.stack(clean).mean(dim=0) if len(clean) == len(parts) else None,
        scale,
    )


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
    save_file(tensors, folder / HEAD_FILE, metadata=metadata)
    (folder / HEAD_FILE).chmod(0o644)


def predict_with_frozen_encoder(model: AdaptedModel, part: Part, images: Tensor) -> Tensor:
    """Compute class probabilities with the exported vectors and the frozen backbone's own encoder. Shape (n, C)."""
    features = F.normalize(model.clip_model.visual(images), dim=-1)
    return (part.scale * features @ part.weight.t()).softmax(dim=1)


class Exported(nn.Module):
    """Module that is exported: it averages the probabilities of its classifiers.

    Args:
        parts: The classifiers.
        temperature: Divisor of the log of the mean of several classifiers.

    Shape:
        Images (n, 3, size, size) to probabilities (n, C).
    """

    def __init__(self, parts: Sequence[Part], temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.encoders = nn.ModuleList(part.encoder for part in parts)
        self.weights = nn.ParameterList(nn.Parameter(part.scale * part.weight, requires_grad=False) for part in parts)

    def forward(self, images: Tensor) -> Tensor:
        """Compute class probabilities. Shape (n, C)."""
        probabilities = [
            (F.normalize(encoder(images), dim=-1) @ weight.t()).softmax(dim=1)
            for encoder, weight in zip(self.encoders, self.weights, strict=True)
        ]
        if len(probabilities) == 1:
            return probabilities[0]
        return (log_mean(probabilities) / self.temperature).softmax(dim=1)
