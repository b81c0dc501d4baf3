"""CoFT+ as a Dassl trainer."""

from __future__ import annotations

from coft.backbones.descriptions import described_features
from coft.method.coft_plus import CoFTPlus as CoFTPlusMethod
from coft.method.coft_plus import CoFTPlusSettings, Describe
from dassl.engine import TRAINER_REGISTRY

from .described import descriptions_from
from .pair import PairTrainer


@TRAINER_REGISTRY.register()
class CoFTPlus(PairTrainer):
    """CoFT with rounds of Phase II, a contrastive loss and class descriptions; see `coft.method.coft_plus.CoFTPlus`."""

    section = "COFTPLUS"
    settings_class = CoFTPlusSettings

    def make_method(self) -> CoFTPlusMethod:
        """Build CoFT+."""
        args = self.images, self.make_backbone(), self.own, self.runtime
        options = {"observer": self.log, "make_optimizer": self.phase1_optimizer}
        return CoFTPlusMethod(*args, describe=self.descriptions(), **options)

    def descriptions(self) -> Describe | None:
        """What makes text features with a share of descriptions; None without descriptions."""
        found = descriptions_from(self, self.own.descriptions.from_)
        if found is None:
            return None
        args = self.clip_model, self.classnames, self.templates, found
        return lambda share: described_features(*args, share, self.synonyms)
