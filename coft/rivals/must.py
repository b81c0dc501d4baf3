"""Self-training of MUST (Li, Savarese and Hoi 2022): an EMA teacher labels each batch; classes are kept in balance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from coft.core.settings import setting, share
from coft.labelling.losses import Term, fairness_term
from coft.labelling.protocol import Batch
from coft.labelling.pseudo_labels import PseudoLabels

from .full_tuning import EqualStepsSettings, FullTuning, TuningSettings


@dataclass(frozen=True)
class MUSTSettings(EqualStepsSettings, TuningSettings):
    """Settings of MUST."""

    wise: float = share(1.0, "share of the fine-tuned weights in the evaluated weights (WiSE-FT)")
    threshold: float = share(0.3, "minimum probability of a label of the EMA weights")
    fairness: float = setting(1.0, "weight of the term that balances classes; 0: none", at_least=0.0)


class MUST(FullTuning):
    """Models trained on the confident labels that their EMA teachers give to weak views.

    With q the mean prediction of a batch, the fairness term is -1/C sum_c log q_c. The label loss is a mean over the
    confident images of the batch.

    Unlike the published method: no masked image modelling and no alignment of global and local features, because a
    ResNet has no patches to mask; two models, CoFT's optimizer, views and trained stages. If a batch is processed in
    parts (micro-batches, several processes), q and the label loss are those of each part.

    Args:
        *args: Arguments of `FullTuning`.
    """

    random_key = "MUST"
    settings: Any

    def label(self) -> Mapping[str, PseudoLabels]:
        """Return zero-shot labels of all images, from which batches are drawn and which are reported."""
        return self.own_labels(tau=0.0)

    def prepare(self, epoch: int) -> None:
        """Label all images before the first step; later, each step makes its own labels."""
        if not epoch:
            self.labels = dict(self.label())

    def views(self, phase: int) -> Sequence[str]:
        """Return the kinds of views of an image: a strong and a weak one."""
        return ["strong", "weak"]

    def loss(self, name: str, batch: Batch) -> dict[str, Term]:
        """Compute cross-entropy on confident labels and the fairness term."""
        settings, student = self.settings, self.students[name]
        count, whole = len(batch.views), len(batch.whole.index)
        with torch.no_grad():
            teacher = student.teacher(batch.views[:, 1])[0].float().softmax(dim=1)
        confidence, label = teacher.max(dim=1)
        mask = confidence >= settings.threshold
        logits = student.model(batch.views[:, 0])[0].float()
        each = F.cross_entropy(logits, label, reduction="none")
        losses = {"loss": Term(count * (each * mask).sum() / mask.sum().clamp_min(1), whole)}
        return losses | fairness_term(logits.softmax(dim=1), whole, settings.fairness)
