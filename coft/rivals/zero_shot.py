"""Zero-shot CLIP: nothing is trained."""

from __future__ import annotations

from torch import Tensor, nn

from coft.labelling.predictor import Predictor, zero_shot
from coft.labelling.protocol import Engine, Method


class ZeroShot(Method):
    """An image encoder with fixed text features.

    SigLIP's bias of logits is left out: it is the same for all classes, so softmax does not depend on it.

    Args:
        engine: The engine that runs the method.
        encoder: Image encoder, from images (n, 3, size, size) to features (n, embed_dim).
        text: Text features of the classes, unit length. Shape (C, embed_dim).
    """

    saves_state = False

    def __init__(self, engine: Engine, encoder: nn.Module, text: Tensor) -> None:
        super().__init__(engine)
        self.encoder, self.text = encoder, text

    def predictor(self) -> Predictor:
        """Return the predictor of zero-shot CLIP."""
        return zero_shot(self.encoder, self.text, self.engine.clip.scale)
