"""Zero-shot CLIP: nothing is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.labelling.predictor import FinalClassifier, Predictor
from coft.method.protocol import Method


class ZeroShot(Method):
    """An image encoder with fixed text features.

    A bias of logits, which SigLIP has, is left out: it is the same for all classes, and no softmax sees it.

    Args:
        clip_model: Its logit scale is read.
        encode: Images (n, 3, size, size) to features (n, embed_dim).
        text: Unit length. Shape (C, embed_dim).
    """

    def __init__(self, clip_model: Any, encode: Callable[[Tensor], Tensor] | nn.Module, text: Tensor) -> None:
        super().__init__()
        self.clip_model, self.encode, self.text = clip_model, encode, text

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Logits of images. Shape (n, C)."""
        return self.clip_model.logit_scale.exp() * F.normalize(self.encode(images), dim=-1) @ self.text.t()

    def predictor(self) -> Predictor | None:
        """What it predicts with, as plain parts; None if the image encoder is no module."""
        if not isinstance(self.encode, nn.Module):
            return None
        scale = float(self.clip_model.logit_scale.exp())
        return Predictor({"zero_shot": FinalClassifier(self.encode, self.text, None, scale)})
