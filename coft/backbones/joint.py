"""Two CLIPs side by side, as one: "photo+photo-lite1".

What is frozen has both: an image's features are those of each, one after the other, and so are a text's. Their products
are then the mean of the two CLIPs' logits. What trains has one of them: a peer, or a model of self-training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class JointVisual(nn.Module):
    """The image encoders of several CLIPs. Features have unit length, and are as wide as theirs together.

    Args:
        members: Each takes images, shape (n, 3, size, size).
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Features of images. Shape (n, embed_dim)."""
        return side_by_side([F.normalize(encoder(images).float(), dim=-1) for encoder in self.members])


class JointClip(nn.Module):
    """Several frozen CLIPs as one.

    Args:
        members: CLIPs of any family that read the same images.

    Attributes:
        logit_scale: Log of the mean of their scales.
    """

    def __init__(self, members: Sequence[Any]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        scale = torch.stack([member.logit_scale.detach().exp() for member in members]).mean()
        self.logit_scale = nn.Parameter(scale.log(), requires_grad=False)
        self._visual = (JointVisual([member.visual for member in members]),)  # in a tuple: they are there already

    @property
    def visual(self) -> JointVisual:
        """The image encoders."""
        return self._visual[0]


def members_of(module: Any) -> list[Any]:
    """Several CLIPs, or image encoders, that make up one; of an ordinary one itself."""
    return list(module.members) if isinstance(module, (JointClip, JointVisual)) else [module]


def side_by_side(features: Sequence[Tensor]) -> Tensor:
    """Features of several CLIPs as one. Unit length, if theirs are; shape (n, the sum of their widths)."""
    return features[0] if len(features) == 1 else torch.cat(list(features), dim=-1) / math.sqrt(len(features))
