"""Self-training: full fine-tuning on the model's own labels of all unlabeled images, with no filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coft.core.settings import setting
from coft.labelling.pseudo_labels import PseudoLabels
from coft.method.coft_settings import CoFTSettings
from coft.method.labeller import first_logits

from .full_tuning import FullTuning, TuningSettings

COFT = CoFTSettings()


@dataclass(frozen=True)
class LabellingSettings(TuningSettings):
    """Settings of trainers that label for themselves."""

    refresh: int = setting(2, "epochs between two labellings of all images; 0: once, before the first", at_least=0)
    prior_tau: float = setting(0.5, "strength of the correction against rarely predicted classes", at_least=0.0)


@dataclass(frozen=True)
class SelfTrainingSettings(LabellingSettings):
    """Settings of self-training."""

    as_coft: bool = setting(False, "labels of as many views as CoFT's, the first ones spread among neighbours")


class SelfTraining(FullTuning):
    """Models that label all images with their moving average; the zero-shot model labels first.

    Images, views, optimizer and steps are those of CoFT's Phase II. What is missing is Phase I, the filter, the
    partner and, without `as_coft`, labels of several views.
    """

    key = "SELFTRAINING"

    def label(self) -> Mapping[str, PseudoLabels]:
        """Each model's own labels."""
        own = self.settings
        if not own.as_coft:
            return self.own_labels(own.prior_tau)
        if self.epoch:
            return self.own_labels(own.prior_tau, COFT.label_views)
        text = self.backbone.zero_shot_text()
        logits = first_logits(self.images, self.backbone, text, self.runtime, COFT.label_views, own.prior_tau)
        found = self.runtime.world.gather(logits.argmax(dim=1))
        labels = dict.fromkeys(self.peers, PseudoLabels.of_pool(found))
        self.observer.labelled({}, labels)
        return labels
