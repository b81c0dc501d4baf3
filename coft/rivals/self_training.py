"""Self-training: full fine-tuning on the model's own labels of all unlabeled images, with no filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coft.core.settings import setting
from coft.labelling.first_labels import first_scores, likeliest
from coft.labelling.neighbours import NeighbourGraph, neighbour_count
from coft.labelling.pseudo_labels import PseudoLabels
from coft.method.coft_settings import CoFTSettings

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

    coft_labels: bool = setting(False, "labels of as many views as CoFT's, the first ones spread among neighbours")


class SelfTraining(FullTuning):
    """Models that label all images with their moving average; the zero-shot model labels first.

    Images, views, optimizer and steps are those of CoFT's Phase II. What is missing is Phase I, the filter, the
    partner and, without `coft_labels`, labels of several views.
    """

    random_key = "SELFTRAINING"

    def label(self) -> Mapping[str, PseudoLabels]:
        """Each model's own labels."""
        settings = self.settings
        if not settings.coft_labels:
            return self.own_labels(settings.prior_tau)
        if self.epoch:
            return self.own_labels(settings.prior_tau, COFT.label_views)
        clip, features = self.engine.clip, self.engine.clip_features(COFT.label_views)
        graph = NeighbourGraph(features, neighbour_count(len(features), len(clip.classnames)))
        scores = first_scores(features, clip.zero_shot_text(), clip.scale, settings.prior_tau, graph)
        labels = dict.fromkeys(self.models, PseudoLabels.of_pool(likeliest(scores)))
        self.observer.labelled({}, labels, {})
        return labels
