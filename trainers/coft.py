"""CoFT, CoFT+ and DeFT as Dassl trainers."""

from __future__ import annotations

from coft.engine.specs import SPECS
from dassl.engine import TRAINER_REGISTRY

from .base import MethodTrainer


@TRAINER_REGISTRY.register()
class CoFT(MethodTrainer):
    """Collaborative fine-tuning without labels; see `coft.method.coft.CoFT`."""

    spec = SPECS["CoFT"]


@TRAINER_REGISTRY.register()
class CoFTPlus(MethodTrainer):
    """CoFT with rounds of Phase I, a contrastive loss and class descriptions; see `coft.method.coft_plus.CoFTPlus`."""

    spec = SPECS["CoFTPlus"]


@TRAINER_REGISTRY.register()
class DeFT(MethodTrainer):
    """Two models trained on zero-shot labels, each with its own filter; see `coft.rivals.deft.DeFT`."""

    spec = SPECS["DeFT"]
