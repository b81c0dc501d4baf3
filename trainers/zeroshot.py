"""Zero-shot CLIP as a Dassl trainer."""

from __future__ import annotations

import logging

from coft.rivals.zero_shot import ZeroShot
from dassl.engine import TRAINER_REGISTRY

from .base import MethodTrainer

log = logging.getLogger(__name__)


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(MethodTrainer):
    """CLIP with the data set's first template, as CoOp's trainer of this name."""

    num_templates: int | None = 1

    def make_method(self) -> ZeroShot:
        """Encode the class names once."""
        log.info("Templates: %s", self.templates[: self.num_templates])
        text = self.make_backbone().zero_shot_text(self.num_templates)
        return ZeroShot(self.clip_model, self.clip_model.visual, text)


@TRAINER_REGISTRY.register()
class ZeroshotCLIP2(ZeroshotCLIP):
    """CLIP with the average of all of the data set's templates."""

    num_templates = None
