"""CoOp, UPL and GRIP as Dassl trainers. CoOp's checkpoints load."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from coft.backbones.prompts import PromptLearner
from coft.core.errors import UserError
from coft.core.finite import check_finite
from coft.engine.run_log import SeedReport
from coft.rivals.grip import GRIP as GRIPMethod
from coft.rivals.grip import GRIPSettings
from coft.rivals.prompt_tuning import UPL as UPLMethod
from coft.rivals.prompt_tuning import CoOp as CoOpMethod
from coft.rivals.prompt_tuning import CoOpSettings, PromptTuning, UPLSettings
from dassl.engine import TRAINER_REGISTRY
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import load_pretrained_weights

from .base import MethodTrainer
from .checkpoints import loads


@TRAINER_REGISTRY.register()
class CoOp(MethodTrainer):
    """Context optimisation with labels; see `coft.rivals.prompt_tuning.CoOp`."""

    section = "COOP"
    settings_class: type | None = CoOpSettings
    learns_from_labels = True

    def check_cfg(self, cfg: Any) -> None:
        """Refuse descriptions.

        Raises:
            UserError: Naming the key.
        """
        super().check_cfg(cfg)
        if self.learns_from_labels and cfg.DATASET.DESCRIPTIONS != "none":
            raise UserError("DATASET.DESCRIPTIONS: CoOp learns its prompts from labels and reads none; leave it out")

    def build_model(self) -> None:
        """Build the prompt learners, which CoOp knows by these names, and load what MODEL.INIT_WEIGHTS names."""
        super().build_model()
        if self.cfg.MODEL.INIT_WEIGHTS:
            for learner in self.method.models.values():
                self.start_from(self.cfg.MODEL.INIT_WEIGHTS, learner)
        self.model = self.prompt_learner = self.method.models["prompt_learner"]

    @loads("MODEL.INIT_WEIGHTS")
    def start_from(self, path: str, learner: nn.Module) -> None:
        """Load the context of a checkpoint of prompts; GRIP's has pseudo-labels of its images beside it.

        Raises:
            UserError: If it is none, or has nothing for this model.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what does not fit is a mere warning to Dassl
            load_pretrained_weights(nn.ParameterDict({"ctx": learner.ctx}), path)
        check_finite(dict(learner.state_dict()), f"MODEL.INIT_WEIGHTS {path}", "give another checkpoint")

    def make_method(self) -> PromptTuning:
        """Build CoOp."""
        return CoOpMethod(self.train_loader_x, *self.common())

    def common(self) -> tuple[Any, ...]:
        """Arguments that all three methods have."""
        key = self.section
        return self.make_backbone(), self.own, self.runtime, self.optimizer_of, self.cfg.OPTIM.MAX_EPOCH, key

    def optimizer_of(self, learner: PromptLearner) -> tuple[Any, Any]:
        """Build Dassl's optimizer and schedule by the section OPTIM."""
        optimizer = build_optimizer(learner, self.cfg.OPTIM)
        return optimizer, build_lr_scheduler(optimizer, self.cfg.OPTIM)

    @property
    def labels_used(self) -> int:
        """Number of labelled images."""
        return len(self.dm.dataset.train_x) if self.learns_from_labels else 0


@TRAINER_REGISTRY.register()
class UPL(CoOp):
    """CoOp's prompt, learned from the surest zero-shot labels; see `coft.rivals.prompt_tuning.UPL`."""

    section = "UPL"
    settings_class = UPLSettings
    label_free = True
    learns_from_labels = False

    def make_method(self) -> PromptTuning:
        """Build UPL; how many pseudo-labels are right goes into the summary."""
        return UPLMethod(self.images, SeedReport(self.diagnostics, self.results), *self.common())


@TRAINER_REGISTRY.register()
class GRIP(CoOp):
    """UPL in rounds; see `coft.rivals.grip.GRIP`."""

    section = "GRIP"
    settings_class = GRIPSettings
    label_free = True
    learns_from_labels = False

    def make_method(self) -> PromptTuning:
        """Build GRIP; how many pseudo-labels are right goes into the summary."""
        return GRIPMethod(self.images, SeedReport(self.diagnostics, self.results), *self.common())
