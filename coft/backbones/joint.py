"""Joint CLIP of two checkpoints: "photo+photo-lite1".

The frozen backbone uses both CLIPs: image features are concatenated, and so are text features. Their dot products are
then the mean of the two CLIPs' cosine similarities. Each trained model (a peer, or one of self-training) has one CLIP.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class JointVisual(nn.Module):
    """Image encoders of several CLIPs, with concatenated features of unit length.

    Args:
        members: Image encoders that take images of shape (n, 3, size, size).
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images. Shape (n, sum of the members' embed_dim)."""
        return side_by_side([F.normalize(encoder(images).float(), dim=-1) for encoder in self.members])


class JointClip(nn.Module):
    """Several frozen CLIPs as one.

    Args:
        members: CLIPs of any family that read the same images.

    Attributes:
        logit_scale: Logarithm of the mean of the members' scales.
    """

    def __init__(self, members: Sequence[Any]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        scale = torch.stack([member.logit_scale.detach().exp() for member in members]).mean()
        self.logit_scale = nn.Parameter(scale.log(), requires_grad=False)
        self._visual = (JointVisual([member.visual for member in members]),)  # in a tuple: already registered

    @property
    def visual(self) -> JointVisual:
        """Joint image encoder."""
        return self._visual[0]


def members_of(module: Any) -> list[Any]:
    """Return the members of a joint CLIP or image encoder; a list of the module itself if it is not joint."""
    return list(module.members) if isinstance(module, (JointClip, JointVisual)) else [module]


def side_by_side(features: Sequence[Tensor]) -> Tensor:
    """Concatenate features of several CLIPs, preserving unit length. Shape (n, sum of their widths)."""
    return features[0] if len(features) == 1 else torch.cat(list(features), dim=-1) / math.sqrt(len(features))
