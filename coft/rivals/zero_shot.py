"""Zero-shot CLIP: nothing is trained."""

from __future__ import annotations

from torch import Tensor, nn

from coft.labelling.predictor import Predictor, zero_shot
from coft.labelling.protocol import Engine, Method


class ZeroShot(Method):
    """An image encoder with fixed text features.

    A bias of logits, which SigLIP has, is left out: it is the same for all classes, and no softmax sees it.

    Args:
        engine: What runs it.
        encoder: Images (n, 3, size, size) to features (n, embed_dim).
        text: Unit length. Shape (C, embed_dim).
    """

    keeps_state = False

    def __init__(self, engine: Engine, encoder: nn.Module, text: Tensor) -> None:
        super().__init__(engine)
        self.encoder, self.text = encoder, text

    def predictor(self) -> Predictor:
        """What it predicts with, as plain parts."""
        return zero_shot(self.encoder, self.text, self.engine.clip.scale)
