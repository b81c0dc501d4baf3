"""CoOp, UPL, GRIP and CPL as Dassl trainers. Checkpoints of the original CoOp can be loaded."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from coft.core.errors import UserError
from coft.core.finite import check_finite
from coft.engine.specs import SPECS
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import load_pretrained_weights

from .base import MethodTrainer
from .checkpoints import loads


@TRAINER_REGISTRY.register()
class CoOp(MethodTrainer):
    """Context optimisation with labels; see `coft.rivals.prompt_tuning.CoOp`."""

    spec = SPECS["CoOp"]

    def check_cfg(self, cfg: Any) -> None:
        """Check that CoOp is not given class descriptions.

        Raises:
            UserError: If DATASET.DESCRIPTIONS is set.
        """
        super().check_cfg(cfg)
        if self.spec.learns_from_labels and cfg.DATASET.DESCRIPTIONS != "none":
            raise UserError("DATASET.DESCRIPTIONS: CoOp learns its prompts from labels and reads none; leave it out")

    def build_model(self) -> None:
        """Build the prompt learners, under CoOp's attribute names, and load the weights of MODEL.INIT_WEIGHTS."""
        super().build_model()
        if self.cfg.MODEL.INIT_WEIGHTS:
            for learner in self.method.models.values():
                self.start_from(self.cfg.MODEL.INIT_WEIGHTS, learner)
        self.model = self.prompt_learner = self.method.models["prompt_learner"]

    @loads("MODEL.INIT_WEIGHTS")
    def start_from(self, path: str, learner: nn.Module) -> None:
        """Load the context vectors of a prompt checkpoint.

        Raises:
            UserError: If the file is not a checkpoint, does not fit this model, or has values that are not finite.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Dassl only warns of weights that do not fit
            load_pretrained_weights(nn.ParameterDict({"ctx": learner.ctx}), path)
        check_finite(dict(learner.state_dict()), f"MODEL.INIT_WEIGHTS {path}", "give another checkpoint")


@TRAINER_REGISTRY.register()
class UPL(CoOp):
    """CoOp's prompt, learned from the most confident zero-shot labels; see `coft.rivals.prompt_tuning.UPL`."""

    spec = SPECS["UPL"]


@TRAINER_REGISTRY.register()
class GRIP(CoOp):
    """UPL in rounds; see `coft.rivals.grip.GRIP`."""

    spec = SPECS["GRIP"]


@TRAINER_REGISTRY.register()
class CPL(CoOp):
    """Prompts learned from sets of candidate labels; see `coft.rivals.cpl.CPL`."""

    spec = SPECS["CPL"]
