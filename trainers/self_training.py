"""Self-training as a Dassl trainer."""

from __future__ import annotations

from coft.engine.run_log import SeedReport
from coft.rivals.self_training import SelfTraining as SelfTrainingMethod
from coft.rivals.self_training import SelfTrainingSettings
from dassl.engine import TRAINER_REGISTRY

from .base import MethodTrainer


@TRAINER_REGISTRY.register()
class SelfTraining(MethodTrainer):
    """Full fine-tuning on the models' own labels; see `coft.rivals.self_training.SelfTraining`."""

    section = "SELFTRAINING"
    settings_class = SelfTrainingSettings
    label_free = True

    def make_method(self) -> SelfTrainingMethod:
        """Build self-training."""
        return SelfTrainingMethod(
            self.images, self.make_backbone(), self.own, self.runtime, SeedReport(self.diagnostics)
        )
