"""DeFT as a Dassl trainer."""

from __future__ import annotations

from coft.rivals.deft import DeFT as DeFTMethod
from coft.rivals.deft import DeFTSettings
from dassl.engine import TRAINER_REGISTRY

from .pair import PairTrainer


@TRAINER_REGISTRY.register()
class DeFT(PairTrainer):
    """Two models on zero-shot labels, each its own filter; see `coft.rivals.deft.DeFT`."""

    section = "DEFT"
    settings_class = DeFTSettings

    def make_method(self) -> DeFTMethod:
        """Build DeFT."""
        return DeFTMethod(self.images, self.make_backbone(), self.own, self.runtime, self.log, self.phase1_optimizer)
