"""Training-free adaptation as a Dassl trainer."""

from __future__ import annotations

from coft.rivals.training_free import TrainingFree as TrainingFreeMethod
from coft.rivals.training_free import TrainingFreeSettings
from dassl.engine import TRAINER_REGISTRY

from .base import MethodTrainer


@TRAINER_REGISTRY.register()
class TrainingFree(MethodTrainer):
    """Zero-shot CLIP, mended without training; see `coft.rivals.training_free.TrainingFree`."""

    section, settings_class, label_free = "TRAININGFREE", TrainingFreeSettings, True

    def make_method(self) -> TrainingFreeMethod:
        """Build it."""
        return TrainingFreeMethod(self.images, self.make_backbone(), self.own, self.runtime)
