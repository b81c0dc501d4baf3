"""Self-training: full fine-tuning on the model's own labels of all unlabeled images, with no filter."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from coft.method.pseudo_labels import PseudoLabels, correct_prior_
from coft.method.settings import setting

from .full_tuning import FullTuning, TuningSettings

log = logging.getLogger(__name__)


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

    @property
    def refresh(self) -> int:
        """Epochs between two labellings."""
        return int(self.settings.refresh)

    def label(self) -> Mapping[str, PseudoLabels]:
        """Each model's own labels."""
        scores = self.labeller.score({name: peer.teacher() for name, peer in self.peers.items()})
        tau = self.settings.prior_tau
        labels = {
            name: PseudoLabels.of_pool(correct_prior_(logits, tau).argmax(dim=1))
            for name, (logits, _) in scores.items()
        }
        self.observer.labelled({}, labels, {name: name for name in labels})
        return labels
