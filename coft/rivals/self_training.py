"""Self-training: full fine-tuning on the model's own labels of all unlabeled images, without a filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coft.core.settings import setting
from coft.labelling.first_labels import likeliest
from coft.labelling.pseudo_labels import PseudoLabels

from .coft_labels import OWN_LABELS, coft_scores, labels_setting, views_setting
from .full_tuning import EqualStepsSettings, FullTuning, TuningSettings


@dataclass(frozen=True)
class LabellingSettings(TuningSettings):
    """Settings of trainers whose models label their own images."""

    refresh: int = setting(2, "epochs between two labellings of all images; 0: once, before the first", at_least=0)
    prior_tau: float = setting(
        0.5, "strength of the prior correction, which favours rarely predicted classes", at_least=0.0, at_most=10.0
    )


@dataclass(frozen=True)
class SelfTrainingSettings(EqualStepsSettings, LabellingSettings):
    """Settings of self-training."""

    labels: str = labels_setting()
    label_views: int = views_setting()


class SelfTraining(FullTuning):
    """Models that label all images with their moving averages; the first labels are those of the zero-shot model.

    Images, strong views, optimizer and steps are those of CoFT's Phase II, without Phase I, filter and partner.
    Settings can give it CoFT's first labels, its number of views, and as many steps as CoFT has in both phases.
    """

    random_key = "SELFTRAINING"

    def label(self) -> Mapping[str, PseudoLabels]:
        """Return each model's own labels, or in the first epoch those that the setting `labels` selects."""
        settings = self.settings
        if settings.labels == OWN_LABELS:
            return self.own_labels(settings.prior_tau)
        if self.epoch:
            return self.own_labels(settings.prior_tau, settings.label_views)
        scores = coft_scores(self.engine, settings.labels, settings.label_views, settings.prior_tau)
        labels = dict.fromkeys(self.models, PseudoLabels.of_pool(likeliest(scores)))
        self.observer.labelled({}, labels, {})
        return labels
