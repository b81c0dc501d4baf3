"""Norm adaptation as a Dassl trainer."""

from __future__ import annotations

from coft.rivals.norm_adaptation import NormAdaptation as NormAdaptationMethod
from coft.rivals.norm_adaptation import NormAdaptationSettings
from dassl.engine import TRAINER_REGISTRY

from .base import MethodTrainer


@TRAINER_REGISTRY.register()
class NormAdaptation(MethodTrainer):
    """Zero-shot CLIP with adapted norms; see `coft.rivals.norm_adaptation.NormAdaptation`."""

    section = "NORMADAPTATION"
    settings_class = NormAdaptationSettings
    label_free = True

    def make_method(self) -> NormAdaptationMethod:
        """Build norm adaptation."""
        return NormAdaptationMethod(self.images, self.make_backbone(), self.own, self.device)
