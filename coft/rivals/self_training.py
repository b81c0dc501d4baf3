"""Self-training: full fine-tuning on the model's own labels of all unlabeled images, with no filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coft.method.pseudo_labels import PseudoLabels
from coft.method.settings import setting

from .full_tuning import FullTuning, TuningSettings


@dataclass(frozen=True)
class SelfTrainingSettings(TuningSettings):
    """Settings of self-training."""

    refresh: int = setting(2, "epochs between two labellings of all images; 0: once, before the first", at_least=0)
    prior_tau: float = setting(0.5, "strength of the correction against rarely predicted classes", at_least=0.0)


class SelfTraining(FullTuning):
    """Models that label all images with their moving average; the zero-shot model labels first.

    Images, views, optimizer and steps are those of CoFT's Phase II. What is missing is Phase I, the filter, the
    partner, and labels of several views.
    """

    key = "SELFTRAINING"

    def label(self) -> Mapping[str, PseudoLabels]:
        """Each model's own labels."""
        return self.own_labels(self.settings.prior_tau)
