"""GRIP (Menghini et al. 2023): prompts learned in rounds, from ever more pseudo-labels (our reconstruction)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from coft.backbones.backbone import ClassBackbone
from coft.backbones.prompts import PromptLearner
from coft.core.settings import setting
from coft.core.tables import map_rows
from coft.labelling.losses import average_predictions
from coft.labelling.pseudo_labels import PseudoLabels
from coft.method.optimizers import PhasedOptimizer, PhasedScheduler
from coft.method.protocol import Batch, Images, Observer, Runtime

from .prompt_tuning import CoOpSettings, MakeOptimizer, PromptTuning


@dataclass(frozen=True)
class GRIPSettings(CoOpSettings):
    """Settings of GRIP."""

    rounds: int = setting(10, "rounds of OPTIM.MAX_EPOCH epochs each", at_least=1)
    ensemble: int = setting(2, "prompts learned independently, whose probabilities are averaged", at_least=1)


def linear_quota(number: int, rounds: int, num_images: int, num_classes: int) -> int:
    """Pseudo-labels of each class in a round, i N / (R C), rounded down; at least 1.

    Args:
        number: Of the round, from 1: i.
        rounds: R. The last one takes all images.
        num_images: N.
        num_classes: C.
    """
    return max(1, number * num_images // (rounds * num_classes))


class RoundLearner(PromptLearner):
    """A prompt learner whose state has the pseudo-labels of its round beside the context."""

    labels = PseudoLabels.none()

    def take(self, labels: PseudoLabels) -> None:
        """Take the pseudo-labels of a round."""
        self.labels = labels

    def get_extra_state(self) -> dict[str, Tensor]:
        """The pseudo-labels."""
        return {"index": self.labels.index, "label": self.labels.label}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Restore the pseudo-labels."""
        self.take(PseudoLabels.certain(**state))


class GRIP(PromptTuning):
    """UPL in rounds. The zero-shot classifier labels for the first; for each other, the prompts of the round before.

    A round takes K = i N / (R C) images of each class and starts with fresh contexts and a fresh optimizer. Members of
    an ensemble label together.

    Unlike the published method: an image that a full class has no place for goes to the class that it has second, or
    to none, so a class can stay short of K; learning rate and batch size are UPL's, and no labelled images choose the
    epoch. Visual and multimodal prompts are left out.

    Args:
        images: The unlabeled images.
        observer: Sees the pseudo-labels.
        backbone: As of `PromptTuning`.
        settings: See `GRIPSettings`.
        runtime: As of `PromptTuning`.
        make_optimizer: As of `PromptTuning`.
        epochs: Of a round.
        key: As of `PromptTuning`.
    """

    learner_class = RoundLearner

    def __init__(
        self,
        images: Images,
        observer: Observer,
        backbone: ClassBackbone,
        settings: GRIPSettings,
        runtime: Runtime,
        make_optimizer: MakeOptimizer,
        epochs: int,
        key: str,
    ) -> None:
        self.round_epochs = epochs
        super().__init__(backbone, settings, runtime, _afresh(make_optimizer), settings.rounds * epochs, key)
        self.images, self.observer = images, observer
        self.learn_from(self.zero_shot_logits(), self.quota(1))

    def quota(self, number: int) -> int:
        """Pseudo-labels of each class in a round, from 1."""
        return linear_quota(number, self.settings.rounds, len(self.pool), len(self.backbone.classnames))

    def take(self, labels: PseudoLabels) -> None:
        """Take pseudo-labels, and put them into the checkpoints."""
        super().take(labels)
        for learner in self.learners.values():
            cast(RoundLearner, learner).take(labels)

    def loaded(self) -> None:
        """Go on with the pseudo-labels of the checkpoint's round."""
        super().take(cast(RoundLearner, self.learners["prompt_learner"]).labels)

    def begin_epoch(self, epoch: int) -> Sequence[Batch]:
        """Begin a round when it is due, and draw the batches."""
        if epoch and epoch % self.round_epochs == 0:
            self.begin_round(1 + epoch // self.round_epochs)
        return super().begin_epoch(epoch)

    @torch.no_grad()
    def begin_round(self, number: int) -> None:
        """Label the images with what was learned, then forget it.

        Args:
            number: Of the round, from 1.
        """
        self.learn_from(self.pool_logits(), self.quota(number))
        for member, (name, learner) in enumerate(self.learners.items()):
            learner.ctx.copy_(self.first_context(member, "round", number))
            self.optimizers[name].enter(number)

    @torch.no_grad()
    def pool_logits(self) -> Tensor:
        """Predictions for all unlabeled images. Shape (N, C), on the CPU."""
        scale, texts = self.backbone.scale, [self.text(name).float().cpu().t() for name in self.learners]

        def compute(rows: Tensor) -> Tensor:
            return average_predictions([scale * rows @ text for text in texts])

        return map_rows(compute, self.backbone.image_features(self.pool), allocate=self.runtime.allocate)


def _afresh(make_optimizer: MakeOptimizer) -> MakeOptimizer:
    """Optimizer and schedule that begin afresh in each round."""

    def make(learner: PromptLearner) -> tuple[Any, Any]:
        optimizer = PhasedOptimizer(lambda number: make_optimizer(learner))
        return optimizer, PhasedScheduler(optimizer)

    return make
