"""GRIP (Menghini et al. 2023): prompts learned in rounds, from ever more pseudo-labels (our reconstruction)."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from coft.backbones.prompts import PromptLearner
from coft.method.ensembling import average_predictions
from coft.method.labelling import image_features
from coft.method.peer import NOTHING
from coft.method.phases import PhasedOptimizer, PhasedScheduler
from coft.method.seeds import Seeds, select_seeds
from coft.method.tables import map_rows
from coft.runtime.ranges import check_positive
from dassl.engine import TRAINER_REGISTRY

from .upl import UPL


def add_config(cfg: Any) -> None:
    """Add GRIP's keys: UPL's, with rounds in the place of a fixed number of pseudo-labels."""
    own = cfg.TRAINER.GRIP = cfg.TRAINER.UPL.clone()
    del own["SEEDS_PER_CLASS"]
    own.ROUNDS = 10  # of OPTIM.MAX_EPOCH epochs each
    own.ENSEMBLE = 2


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

    seeds = Seeds(*NOTHING)

    def get_extra_state(self) -> dict[str, Tensor]:
        """The pseudo-labels."""
        return {"ranks": self.seeds.ranks, "labels": self.seeds.labels}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Restore the pseudo-labels."""
        self.seeds = Seeds(**state)


@TRAINER_REGISTRY.register()
class GRIP(UPL):
    """UPL in rounds. The zero-shot classifier labels for the first; for each other, the prompts of the round before.

    A round takes K = i N / (R C) images of each class and starts with fresh contexts and a fresh optimizer. Members of
    an ensemble label together.

    Unlike the published method: an image that a full class has no place for goes to the class that it has second, or
    to none, so a class can stay short of K; learning rate and batch size are UPL's, and no labelled images choose the
    epoch. Visual and multimodal prompts are left out.
    """

    settings = "GRIP"
    learner_class = RoundLearner

    def check_cfg(self, cfg: Any) -> None:
        """Refuse counts below 1."""
        super().check_cfg(cfg)
        check_positive(cfg, "TRAINER.GRIP.ROUNDS")

    def build_model(self) -> None:
        """Build the prompt learners, and pseudo-label the images of the first round."""
        self.epochs, self.round = self.cfg.OPTIM.MAX_EPOCH, 1
        self.max_epoch = self.cfg.TRAINER.GRIP.ROUNDS * self.epochs
        super().build_model()

    def build_optimizer(self, learner: PromptLearner) -> tuple[Any, Any]:
        """Build an optimizer and a schedule that begin afresh in each round."""
        build = super().build_optimizer
        optimizer = PhasedOptimizer(partial(_of_any_round, build, learner))
        return optimizer, PhasedScheduler(optimizer)

    @property
    def seeds_per_class(self) -> int:
        """Pseudo-labels of each class in the present round."""
        return linear_quota(self.round, self.cfg.TRAINER.GRIP.ROUNDS, len(self.pool), len(self.classnames))

    def learn_from(self, seeds: Seeds) -> None:
        """Take pseudo-labels to be trained on, and put them into the checkpoints."""
        super().learn_from(seeds)
        for learner in self.learners.values():
            cast(RoundLearner, learner).seeds = seeds

    def before_train(self) -> None:
        """Resume, with the pseudo-labels of the round."""
        super().before_train()
        if self.start_epoch:
            self.learn_from(cast(RoundLearner, self.prompt_learner).seeds)

    def before_epoch(self) -> None:
        """Begin a round when it is due, and draw the epoch's batches."""
        if self.epoch and self.epoch % self.epochs == 0:
            self.begin_round(1 + self.epoch // self.epochs)
        super().before_epoch()

    @torch.no_grad()
    def begin_round(self, number: int) -> None:
        """Label the images with what was learned, then forget it.

        Args:
            number: Of the round, from 1.
        """
        self.round = number
        self.learn_from(select_seeds(self.pool_logits(), self.seeds_per_class)[0])
        for member, (name, learner) in enumerate(self.learners.items()):
            learner.ctx.copy_(self.first_context(member, "round", number))
            self._optims[name].enter(number)

    @torch.no_grad()
    def pool_logits(self) -> Tensor:
        """Predictions for all unlabeled images. Shape (N, C), on the CPU."""
        features = image_features(self.clip_model, self.pool, self.cfg, self.device)
        scale = float(self.clip_model.logit_scale.exp())
        texts = [self.text(name).float().cpu().t() for name in self.learners]
        return map_rows(
            lambda rows: average_predictions([scale * rows @ text for text in texts]), features, folder=self.output_dir
        )


def _of_any_round(build: Any, learner: PromptLearner, number: int) -> Any:
    return build(learner)
