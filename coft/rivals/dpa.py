"""DPA (Ali, Silva and Khan, WACV 2025): labels from text and image prototypes together (our reconstruction)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.core.settings import setting, share
from coft.labelling.first_labels import likeliest
from coft.labelling.losses import Term, fairness_term
from coft.labelling.predictor import final_classifier
from coft.labelling.protocol import Batch, Encoders
from coft.labelling.prototypes import image_prototypes, probability_by_image

from .full_tuning import EqualStepsSettings, TuningSettings
from .must import MUST

WINDOW = 32  # batches whose mean prediction balances the labels, as published


@dataclass(frozen=True)
class DPASettings(EqualStepsSettings, TuningSettings):
    """Settings of DPA."""

    wise: float = share(1.0, "share of the fine-tuned weights in the evaluated weights (WiSE-FT)")
    image_share: float = share(0.5, "weight of the image prototypes in the labels of a batch")
    fairness: float = setting(1.0, "weight of the term that balances classes; 0: none", at_least=0.0)
    align: float = setting(1.0, "weight of the term that aligns both kinds of prototypes; 0: none", at_least=0.0)


class DPA(MUST):
    """Models that label weak views by trainable text prototypes and by image prototypes, which are mean features.

    Predictions by text are divided by their mean over the last 32 batches, to balance the classes of the labels.

    Unlike the published method: image prototypes are computed from all images at the beginning of an epoch, and not
    from the features of its steps; the mean over batches starts with that over all images, and does not include the
    batch at hand; CoFT's trained stages instead of norms alone; two models, CoFT's optimizer and views, and EMA
    weights, which are evaluated. For a batch in parts, see `MUST`.

    Args:
        *args: Arguments of `FullTuning`.
    """

    random_key = "DPA"
    settings: Any

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # Image prototypes, of unit length, (C, embed_dim); mean predictions by text of the last batches, (WINDOW, C).
        for student in self.students.values():
            student.register_buffer("prototypes", student.model.positive.detach().clone())
            student.register_buffer("recent", torch.zeros(WINDOW, len(student.model.positive)).to(self.engine.device))

    def keeps_rows(self, phase: int) -> bool:
        """Return True: predictions by text are kept for their mean over batches."""
        return True

    def student_encoders(self) -> Encoders:
        """Return the encoders that train."""
        return {name: student.model.features for name, student in self.students.items()}

    @torch.no_grad()
    def prepare(self, epoch: int) -> None:
        """Recompute the image prototypes; a class without images takes its text prototype."""
        super().prepare(epoch)
        for name, features in self.engine.encode(self.student_encoders).items():
            student: Any = self.students[name]
            logits, images = final_classifier(student.model).logits(features), student.prototypes.cpu()
            probability = (
                logits if epoch == 0 else logits.map(lambda rows, x, p=images: self._both(rows, x, p), features)
            )
            texts = F.normalize(student.model.positive.detach().float().cpu(), dim=-1)
            student.prototypes.copy_(image_prototypes(features, likeliest(probability), texts))
            if not epoch:
                student.recent.copy_(logits.map(lambda rows: rows.float().softmax(dim=1)).mean())

    def _both(self, logits: Tensor, features: Tensor, prototypes: Tensor) -> Tensor:
        """Mix the probabilities from text and image prototypes. Shape (n, C)."""
        weight = self.settings.image_share
        by_image = probability_by_image(features, prototypes, self.engine.clip.scale)
        return weight * by_image + (1 - weight) * logits.float().softmax(dim=1)

    @torch.no_grad()
    def label_batch(self, student: Any, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return labels of weak views and their weights, shape (n,) each, and predictions by text, shape (n, C).

        The weight is the product of p(label) / max_c p(c) under text and under image prototypes.
        """
        features = student.model.features(views)
        by_text = student.model.classify(features)[0].float().softmax(dim=1)
        by_image = probability_by_image(features, student.prototypes, self.engine.clip.scale)
        balanced = F.normalize(by_text / student.recent.mean(dim=0).clamp_min(1e-12), p=1, dim=1)
        weight = self.settings.image_share
        label = (weight * by_image + (1 - weight) * balanced).argmax(dim=1)
        near = [p.gather(1, label.unsqueeze(1)).squeeze(1) / p.max(dim=1).values for p in (by_text, by_image)]
        return label, near[0] * near[1], by_text

    def loss(self, name: str, batch: Batch) -> dict[str, Term]:
        """Compute weighted cross-entropy (a mean over all images), the fairness term and the alignment term."""
        settings = self.settings
        student: Any = self.students[name]
        whole, count = len(batch.whole.index), len(batch.views)
        label, weight, by_text = self.label_batch(student, batch.views[:, 1])
        batch.keep(by_text)
        logits = student.model(batch.views[:, 0])[0].float()
        losses = {"loss": Term((weight * F.cross_entropy(logits, label, reduction="none")).sum(), whole)}
        losses |= fairness_term(logits.softmax(dim=1), whole, settings.fairness)
        if settings.align:
            texts = F.normalize(student.model.positive.float(), dim=-1)
            products = self.engine.clip.scale * student.prototypes.float() @ texts.t()
            apart = F.cross_entropy(products, torch.arange(len(texts), device=products.device))
            losses["apart"] = Term(count * apart, whole, settings.align)  # in proportion to this part of the batch
        return losses

    def after_step(self, name: str, index: Tensor, kept: Tensor | None) -> None:
        """Update a model's moving average of weights, and the recent mean predictions by text."""
        super().after_step(name, index, kept)
        if kept is not None and len(kept):
            recent: Any = self.students[name].recent
            recent.copy_(torch.cat([recent[1:], kept.mean(dim=0, keepdim=True).to(recent)]))
