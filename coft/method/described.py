"""A classifier that reads class descriptions when it predicts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.method.peer import Classifier


class DescribedClassifier(Classifier):
    """A classifier whose logits are of positive vectors with a share of descriptions.

    Its clean log-odds are of the positive vectors alone: the negative ones were fitted to those.

    Args:
        plain: Encoder, vectors and scale.
        described: Unit-length text features of the descriptions. Shape (C, embed_dim).
        share: Of the descriptions in the vectors of the logits.
    """

    def __init__(self, plain: Classifier, described: Tensor, share: float) -> None:
        super().__init__(plain.encoder, plain.positive, plain.negative, plain.scale)
        with torch.no_grad():
            self.mixed: Tensor = torch.lerp(F.normalize(plain.positive, dim=-1), described, share)

    def classify(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Compare image features with the classes' vectors; as of `Classifier`."""
        _, log_odds = super().classify(features)
        with torch.autocast(features.device.type, enabled=False):
            return self.scale * features @ F.normalize(self.mixed, dim=-1).t(), log_odds
