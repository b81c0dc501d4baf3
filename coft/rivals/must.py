"""Self-training of MUST (Li, Savarese and Hoi 2022): an EMA teacher labels each batch; classes are kept in balance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.core.settings import setting, share
from coft.labelling.losses import Term
from coft.labelling.protocol import Batch
from coft.labelling.pseudo_labels import PseudoLabels

from .full_tuning import FullTuning, TuningSettings

MOMENTUM = 0.5  # momentum of the mean prediction, as published; 0.9 lags behind, and runs can collapse


@dataclass(frozen=True)
class MUSTSettings(TuningSettings):
    """Settings of MUST."""

    wise: float = share(1.0, "share of the fine-tuned weights in the evaluated weights (WiSE-FT)")
    threshold: float = share(0.7, "minimum probability of a label of the EMA weights")
    fairness: float = setting(1.0, "weight of the term that balances classes; 0: none", at_least=0.0)


class MUST(FullTuning):
    """Models trained on the confident labels that their EMA teachers give to weak views.

    With q the mean prediction, the fairness term is -1/C sum_c log q_c. It is implemented as a term that is linear in
    the batch's predictions and has the same gradient.

    In the published method q is the batch's mean, or with 512 classes and more its moving average. Here it is always
    the moving average, over earlier batches: a micro-batch does not know the mean of its whole batch.

    Also unlike the published method: the label loss is a mean over all images of a batch, not only over the confident
    ones; no masked image modelling and no alignment of global and local features, because a ResNet has no patches to
    mask; two models, CoFT's optimizer, views and steps.

    Args:
        *args: Arguments of `FullTuning`.
    """

    random_key = "MUST"
    settings: Any

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        classes = len(self.engine.clip.classnames)
        for student in self.students.values():
            student.register_buffer("mean_prediction", torch.full((classes,), 1 / classes, device=self.engine.device))

    def label(self) -> Mapping[str, PseudoLabels]:
        """Return zero-shot labels of all images, from which batches are drawn and which are reported."""
        return self.own_labels(tau=0.0)

    def prepare(self, epoch: int) -> None:
        """Label all images before the first step; later, each step makes its own labels."""
        if not epoch:
            self.labels = dict(self.label())

    def view(self, phase: int) -> str:
        """Return the kind of views: a strong and a weak one of each image."""
        return "strong and weak"

    def keeps_rows(self, phase: int) -> bool:
        """Return True: predictions are kept for their moving average."""
        return True

    def loss(self, name: str, batch: Batch) -> dict[str, Term]:
        """Compute cross-entropy on confident labels (a mean over all images of the batch) and the fairness term."""
        settings, student, count = self.settings, self.students[name], len(batch.whole.index)
        with torch.no_grad():
            teacher = student.teacher(batch.views[:, 1])[0].float().softmax(dim=1)
        sure, label = teacher.max(dim=1)
        logits = student.model(batch.views[:, 0])[0].float()
        each = F.cross_entropy(logits, label, reduction="none") * (sure >= settings.threshold)
        losses = {"loss": Term(each.sum(), count)}
        predicted = logits.softmax(dim=1)
        batch.keep(predicted.detach())
        return losses | self.fairness_term(predicted, student, count)

    def fairness_term(self, predicted: Tensor, student: nn.Module, count: int) -> dict[str, Term]:
        """Compute the term that balances the classes; empty if `fairness` is 0.

        Args:
            predicted: Predicted probabilities. Shape (n, C).
            student: Model that predicted them.
            count: Number of images in the whole batch.
        """
        if not self.settings.fairness:
            return {}
        unfair = -(predicted / self.mean_prediction(student)).mean(dim=1)
        return {"unfair": Term(unfair.sum(), count, self.settings.fairness)}

    def after_step(self, name: str, index: Tensor, kept: Tensor | None) -> None:
        """Update a model's moving averages of weights and of predictions."""
        super().after_step(name, index, kept)
        if kept is not None and len(kept):
            mean = self.mean_prediction(self.students[name])
            mean.lerp_(kept.mean(dim=0).to(mean), 1 - MOMENTUM)

    @staticmethod
    def mean_prediction(student: nn.Module) -> Tensor:
        """Return the moving average of a model's predictions. Shape (C,)."""
        return cast(Tensor, student.mean_prediction)
