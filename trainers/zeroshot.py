"""Zero-shot CLIP: nothing is trained."""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.backbones.descriptions import zero_shot_features
from dassl.engine import TRAINER_REGISTRY
from trainers.base import ClipTrainer

log = logging.getLogger(__name__)


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(ClipTrainer):
    """CLIP with the data set's first template, as CoOp's trainer of this name."""

    num_templates = 1

    def build_model(self) -> None:
        """Encode the class names once."""
        self.load_backbone()
        chosen = self.templates[: self.num_templates]
        log.info("Templates: %s", chosen)
        self.text_features = zero_shot_features(self, chosen)

    @torch.no_grad()
    def model_inference(self, image: Tensor) -> Tensor:
        """Logits of images. Shape (n, C)."""
        features = F.normalize(self.clip_model.encode_image(image), dim=-1)
        return self.clip_model.logit_scale.exp() * features @ self.text_features.t()

    def train(self) -> None:  # type: ignore[override]
        """There is nothing to train: evaluate."""
        self.test()
        self.write_summary()


@TRAINER_REGISTRY.register()
class ZeroshotCLIP2(ZeroshotCLIP):
    """CLIP with the average of all of the data set's templates."""

    num_templates = 1_000
