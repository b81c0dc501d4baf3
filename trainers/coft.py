"""CoFT as a Dassl trainer."""

from __future__ import annotations

from coft.method.coft import CoFT as CoFTMethod
from coft.method.coft_settings import CoFTSettings
from dassl.engine import TRAINER_REGISTRY

from .pair import PairTrainer


@TRAINER_REGISTRY.register()
class CoFT(PairTrainer):
    """Collaborative fine-tuning without a label; see `coft.method.coft.CoFT`."""

    section = "COFT"
    settings_class = CoFTSettings

    def make_method(self) -> CoFTMethod:
        """Build CoFT."""
        args = self.images, self.make_backbone(), self.own, self.runtime, self.log
        return CoFTMethod(*args, make_optimizer=self.phase1_optimizer)
