"""Label-free rivals and zero-shot CLIP as Dassl trainers."""

from __future__ import annotations

from coft.engine.specs import SPECS
from dassl.engine import TRAINER_REGISTRY

from .base import MethodTrainer


@TRAINER_REGISTRY.register()
class SelfTraining(MethodTrainer):
    """Full fine-tuning on the models' own pseudo-labels; see `coft.rivals.self_training.SelfTraining`."""

    spec = SPECS["SelfTraining"]


@TRAINER_REGISTRY.register()
class MUST(MethodTrainer):
    """Self-training on labels that an EMA teacher gives to each batch; see `coft.rivals.must.MUST`."""

    spec = SPECS["MUST"]


@TRAINER_REGISTRY.register()
class DPA(MethodTrainer):
    """Self-training on labels from text prototypes and image prototypes; see `coft.rivals.dpa.DPA`."""

    spec = SPECS["DPA"]


@TRAINER_REGISTRY.register()
class LaFTer(MethodTrainer):
    """Self-training that starts from a classifier of texts; see `coft.rivals.lafter.LaFTer`."""

    spec = SPECS["LaFTer"]


@TRAINER_REGISTRY.register()
class TrainingFree(MethodTrainer):
    """Zero-shot CLIP, improved without training; see `coft.rivals.training_free.TrainingFree`."""

    spec = SPECS["TrainingFree"]


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(MethodTrainer):
    """CLIP with the first template of the data set, like CoOp's trainer of this name."""

    spec = SPECS["ZeroshotCLIP"]


@TRAINER_REGISTRY.register()
class ZeroshotCLIP2(MethodTrainer):
    """CLIP with the text features averaged over all templates of the data set."""

    spec = SPECS["ZeroshotCLIP2"]
