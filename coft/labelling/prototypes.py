"""Image prototypes: the mean feature of the images of each class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.core.table import Table


def image_prototypes(features: Table, label: Tensor, empty: Tensor) -> Tensor:
    """Compute the mean feature of each class; a class without images takes another vector.

    Args:
        features: Image features. Shape (N, embed_dim).
        label: Labels of the images. Shape (N,).
        empty: Vectors of unit length for classes without images. Shape (C, embed_dim).

    Returns:
        Prototypes of unit length. Shape (C, embed_dim).
    """
    sums = features.sum_by(label, len(empty))
    return torch.where(sums.norm(dim=1, keepdim=True) > 0, F.normalize(sums, dim=-1), empty)


def probability_by_image(features: Tensor, prototypes: Tensor, scale: float) -> Tensor:
    """Compute class probabilities from image prototypes, in the precision of the features.

    Args:
        features: Image features of unit length. Shape (n, embed_dim).
        prototypes: Image prototypes. Shape (C, embed_dim).
        scale: CLIP's logit scale.

    Returns:
        Probabilities. Shape (n, C).
    """
    with torch.autocast(features.device.type, enabled=False):
        return (scale * features @ prototypes.t()).softmax(dim=1)
