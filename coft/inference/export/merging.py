"""One encoder and one set of vectors for what is exported: both peers, one of them, or their average."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from coft.core.errors import UserError
from coft.inference.model import AdaptedModel
from coft.labelling.predictor import FinalClassifier
from coft.method.labeller import SCORES

from .export_options import BOTH


@dataclass(frozen=True)
class Part:
    """A classifier as it is exported: the softmax of `scale * features @ weight.T`.

    Attributes:
        encoder: Images to features, on the CPU, fp32. Low-rank updates are part of its weights.
        weight: Vectors of the classes. Shape (C, embed_dim).
        clean: Vectors of the clean log-odds. Shape (C, embed_dim); None where there are none.
        scale: CLIP's logit scale.
    """

    encoder: nn.Module
    weight: Tensor
    clean: Tensor | None
    scale: float


def parts_of(model: AdaptedModel, peers: str) -> list[Part]:
    """What is exported of a model.

    Args:
        model: On the CPU, in fp32.
        peers: One of `PEERS`. A model of one classifier is exported as it is.

    Raises:
        UserError: If the model has no such peer.
    """
    visual, score = model.clip_model.visual, model.predictor.score
    parts = [part_of(own, score, visual) for own in model.predictor.classifiers.values()]
    if peers in ("a", "b"):
        number = "ab".index(peers)
        if number >= len(parts):
            raise UserError(f"--peers {peers}: the model is a single one; leave it out")
        return [parts[number]]
    return parts if peers == BOTH or len(parts) == 1 else [averaged(parts)]


def part_of(own: FinalClassifier, score: str, visual: nn.Module) -> Part:
    """A classifier with one vector a class: l+, d and the score are linear in the features."""
    clean = torch.zeros_like(own.positive) if own.clean is None else own.clean
    return Part(merged(own.encoder, visual), SCORES[score](own.positive, clean), own.clean, own.scale)


@torch.no_grad()
def merged(encoder: nn.Module, visual: nn.Module) -> nn.Module:
    """A copy of an encoder in which low-rank updates are part of the weights.

    Args:
        encoder: Made from `visual`.
        visual: The backbone's encoder.
    """
    if not any(parametrize.is_parametrized(module) for module in encoder.modules()):
        return copy.deepcopy(encoder).eval().requires_grad_(False)
    twin = copy.deepcopy(visual)
    twin.load_state_dict({name: reduce(getattr, name.split("."), encoder) for name in visual.state_dict()})
    return twin.eval().requires_grad_(False)


@torch.no_grad()
def averaged(parts: Sequence[Part]) -> Part:
    """The average of encoders, weight by weight, and of vectors. All started from the same backbone."""
    encoder, states = copy.deepcopy(parts[0].encoder), [part.encoder.state_dict() for part in parts]
    mean = {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(value.dtype)
        for name, value in states[0].items()
    }
    encoder.load_state_dict(mean)
    clean = [part.clean for part in parts if part.clean is not None]
    return Part(
        encoder,
        torch.stack([part.weight for part in parts]).mean(dim=0),
        torch.stack(clean).mean(dim=0) if len(clean) == len(parts) else None,
        parts[0].scale,
    )


class Exported(nn.Module):
    """What an export computes.

    Args:
        parts: Classifiers whose probabilities are averaged.

    Shape:
        Images (n, 3, size, size) to probabilities (n, C).
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(part.encoder for part in parts)
        self.weights = nn.ParameterList(nn.Parameter(part.scale * part.weight, requires_grad=False) for part in parts)

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities of images."""
        each = [
            (F.normalize(encoder(images), dim=-1) @ weight.t()).softmax(dim=1)
            for encoder, weight in zip(self.encoders, self.weights, strict=True)
        ]
        return torch.stack(each).mean(dim=0)
