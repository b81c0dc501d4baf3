"""DPA (Ali, Silva and Khan, WACV 2025): labels from text and image prototypes together (our reconstruction)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.core.settings import setting, share
from coft.labelling.losses import Term
from coft.labelling.predictor import final_classifier
from coft.labelling.protocol import Batch, Encoders

from .full_tuning import TuningSettings
from .must import MUST


@dataclass(frozen=True)
class DPASettings(TuningSettings):
    """Settings of DPA."""

    wise: float = share(1.0, "share of the fine-tuned weights in the evaluated weights (WiSE-FT)")
    image_share: float = share(0.5, "weight of the image prototypes in the labels of a batch")
    fairness: float = setting(1.0, "weight of the term that balances classes; 0: none", at_least=0.0)
    align: float = setting(1.0, "weight of the term that aligns both kinds of prototypes; 0: none", at_least=0.0)


class DPA(MUST):
    """Models that label weak views by trainable text prototypes and by image prototypes, which are mean features.

    Unlike the published method: image prototypes are computed from all images at the beginning of an epoch, and not
    from the features of its steps; predictions are balanced by the moving average of the fairness term, not by the mean
    over the last 32 batches; two models, CoFT's optimizer, views and steps, and EMA weights, which are evaluated.

    Args:
        *args: Arguments of `FullTuning`.
    """

    random_key = "DPA"
    settings: Any

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        for student in self.students.values():
            student.register_buffer("prototypes", student.model.positive.detach().clone())

    def student_encoders(self) -> Encoders:
        """Return the encoders that train."""
        return {name: student.model.features for name, student in self.students.items()}

    @torch.no_grad()
    def prepare(self, epoch: int) -> None:
        """Recompute the image prototypes; a class without images takes its text prototype."""
        super().prepare(epoch)
        for name, features in self.engine.encode(self.student_encoders).items():
            student = self.students[name]
            logits, images = final_classifier(student.model).logits(features), self.prototypes(student).cpu()
            probability = (
                logits if epoch == 0 else logits.map(lambda rows, x, p=images: self._both(rows, x, p), features)
            )
            sums = probability.map(lambda rows: F.one_hot(rows.argmax(dim=1), rows.shape[1]).float()).inner(features)
            texts = F.normalize(student.model.positive.detach().float().cpu(), dim=-1)
            means = torch.where(sums.norm(dim=1, keepdim=True) > 0, F.normalize(sums, dim=-1), texts)
            self.prototypes(student).copy_(means)

    def _both(self, logits: Tensor, features: Tensor, prototypes: Tensor) -> Tensor:
        """Mix the probabilities from text and image prototypes. Shape (n, C)."""
        weight = self.settings.image_share
        by_image = self.by_image(features, prototypes)
        return weight * by_image + (1 - weight) * logits.float().softmax(dim=1)

    def by_image(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """Compute probabilities from image prototypes and features of unit length. Shape (n, C)."""
        return (self.engine.clip.scale * features.float() @ prototypes.float().t()).softmax(dim=1)

    @torch.no_grad()
    def label_batch(self, student: nn.Module, views: Tensor) -> tuple[Tensor, Tensor]:
        """Return labels of weak views, and their weights. Shape (n,) each.

        The weight is the product of p(label) / max_c p(c) under text and under image prototypes.
        """
        model: Any = student.model
        features = model.features(views)
        by_text = model.classify(features)[0].float().softmax(dim=1)
        by_image = self.by_image(features, self.prototypes(student))
        balanced = F.normalize(by_text / self.mean_prediction(student), p=1, dim=1)
        weight = self.settings.image_share
        label = (weight * by_image + (1 - weight) * balanced).argmax(dim=1)
        near = [p.gather(1, label.unsqueeze(1)).squeeze(1) / p.max(dim=1).values for p in (by_text, by_image)]
        return label, near[0] * near[1]

    def loss(self, name: str, batch: Batch) -> dict[str, Term]:
        """Compute weighted cross-entropy (a mean over all images), the fairness term and the alignment term."""
        settings, student = self.settings, self.students[name]
        whole, count = len(batch.whole.index), len(batch.views)
        label, weight = self.label_batch(student, batch.views[:, 1])
        logits = student.model(batch.views[:, 0])[0].float()
        losses = {"loss": Term((weight * F.cross_entropy(logits, label, reduction="none")).sum(), whole)}
        predicted = logits.softmax(dim=1)
        batch.keep(predicted.detach())
        losses |= self.fairness_term(predicted, student, whole)
        if settings.align:
            texts = F.normalize(student.model.positive.float(), dim=-1)
            products = self.engine.clip.scale * self.prototypes(student).float() @ texts.t()
            apart = F.cross_entropy(products, torch.arange(len(texts), device=products.device))
            losses["apart"] = Term(count * apart, whole, settings.align)  # in proportion to this part of the batch
        return losses

    @staticmethod
    def prototypes(student: nn.Module) -> Tensor:
        """Return the image prototypes of a model. Unit length, shape (C, embed_dim)."""
        return cast(Tensor, student.prototypes)
