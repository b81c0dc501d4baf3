"""Rivals that read no label, and zero-shot CLIP, as Dassl trainers."""

from __future__ import annotations

from coft.engine.specs import SPECS
from dassl.engine import TRAINER_REGISTRY

from .base import MethodTrainer


@TRAINER_REGISTRY.register()
class SelfTraining(MethodTrainer):
    """Full fine-tuning on the models' own labels; see `coft.rivals.self_training.SelfTraining`."""

    spec = SPECS["SelfTraining"]


@TRAINER_REGISTRY.register()
class MUST(MethodTrainer):
    """Self-training on what the moving average says of each batch; see `coft.rivals.must.MUST`."""

    spec = SPECS["MUST"]


@TRAINER_REGISTRY.register()
class DPA(MethodTrainer):
    """Prototypes of texts and of images label together; see `coft.rivals.dpa.DPA`."""

    spec = SPECS["DPA"]


@TRAINER_REGISTRY.register()
class LaFTer(MethodTrainer):
    """A classifier of texts labels the images that tune it; see `coft.rivals.lafter.LaFTer`."""

    spec = SPECS["LaFTer"]


@TRAINER_REGISTRY.register()
class NormAdaptation(MethodTrainer):
    """Zero-shot CLIP with adapted norms; see `coft.rivals.norm_adaptation.NormAdaptation`."""

    spec = SPECS["NormAdaptation"]


@TRAINER_REGISTRY.register()
class TrainingFree(MethodTrainer):
    """Zero-shot CLIP, mended without training; see `coft.rivals.training_free.TrainingFree`."""

    spec = SPECS["TrainingFree"]


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(MethodTrainer):
    """CLIP with the data set's first template, as CoOp's trainer of this name."""

    spec = SPECS["ZeroshotCLIP"]


@TRAINER_REGISTRY.register()
class ZeroshotCLIP2(MethodTrainer):
    """CLIP with the average of all of the data set's templates."""

    spec = SPECS["ZeroshotCLIP2"]
