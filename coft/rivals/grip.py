"""GRIP (Menghini et al. 2023): prompts learned in rounds from more and more pseudo-labels (our reconstruction)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from coft.core.settings import setting
from coft.core.table import Table
from coft.labelling.losses import average_predictions
from coft.labelling.protocol import Engine, Observer

from .prompt_tuning import CoOpSettings, PromptTuning


@dataclass(frozen=True)
class GRIPSettings(CoOpSettings):
    """Settings of GRIP."""

    rounds: int = setting(10, "rounds of OPTIM.MAX_EPOCH epochs each", at_least=1)
    ensemble: int = setting(2, "prompts learned independently, whose probabilities are averaged", at_least=1)


def linear_quota(number: int, rounds: int, num_images: int, num_classes: int) -> int:
    """Return the number of pseudo-labels per class in a round: i N / (R C), rounded down; at least 1.

    Args:
        number: Number i of the round, from 1.
        rounds: Number of rounds R. The last one takes all images.
        num_images: N.
        num_classes: C.
    """
    return max(1, number * num_images // (rounds * num_classes))


class GRIP(PromptTuning):
    """UPL in rounds. Labels come from the zero-shot classifier in the first round, later from the round before.

    A round takes K = i N / (R C) images of each class and starts with fresh contexts and a fresh optimizer. Members of
    an ensemble label together.

    Unlike the published method: an image for which a class has no place left goes to its second class, or to none, so
    a class can stay short of K; learning rate and batch size are UPL's, and no labelled images choose the epoch. Visual
    and multimodal prompts are left out.

    Args:
        engine: The engine that runs the method.
        settings: GRIP settings.
        epochs: Number of epochs in a round.
        observer: Callbacks on pseudo-labels.
    """

    random_key = "GRIP"
    new_optimizer_per_phase = True  # each round is a phase

    def __init__(self, engine: Engine, settings: GRIPSettings, epochs: int, observer: Observer | None = None) -> None:
        self.round_epochs = epochs
        super().__init__(engine, settings, settings.rounds * epochs, observer)

    def phase(self, epoch: int) -> int:
        """Return the number of an epoch's round, from 1."""
        return 1 + epoch // self.round_epochs

    def quota(self, number: int) -> int:
        """Return the number of pseudo-labels per class in a round, numbered from 1."""
        classes = len(self.engine.clip.classnames)
        return linear_quota(number, self.settings.rounds, len(self.engine.images), classes)

    def begin(self) -> None:
        """Choose the pseudo-labels of the first round."""
        self.learn_from(self.zero_shot_logits(), self.quota(1))

    @torch.no_grad()
    def prepare(self, epoch: int) -> None:
        """At the beginning of a later round, label the images with the learned prompts, then reset these."""
        if not epoch or epoch % self.round_epochs:
            return
        number = self.phase(epoch)
        self.learn_from(self.learned_logits(), self.quota(number))
        for member, learner in enumerate(self.learners.values()):
            learner.ctx.copy_(self.first_context(member, "round", number))

    def learned_logits(self) -> Table:
        """Compute the ensemble's predictions for all unlabeled images. Shape (N, C)."""
        scale = self.engine.clip.scale
        with self.engine.autocast():
            texts = [self.text(name).float().cpu().t() for name in self.learners]

        def predict(rows: Tensor) -> Tensor:
            return average_predictions([scale * rows @ text for text in texts])

        return self.engine.clip_features().map(predict)
