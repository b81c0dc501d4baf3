"""Does CLIP know these classes at all? Asked before anything is trained, by its own probabilities and no label."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from coft.core.table import Table

log = logging.getLogger(__name__)
LEAST_SKILL = 0.22  # just above EuroSAT, where training can lose; on other sets it has gained at every skill
LEAST_INFORMATION = 1 / 4


@dataclass(frozen=True)
class Knowledge:
    """What CLIP believes of itself on some images.

    Attributes:
        skill: How often it expects to be right, above naming the commonest class every time: (mean of max_c p - m) /
            (1 - m), where m is the greatest mean probability of a class.
        information: Mutual information of image and class, as a share of log C: 0 where all images look the same to it,
            1 where it is sure of each, and classes are of one size.
    """

    skill: float
    information: float

    @property
    def hardly_any(self) -> bool:
        """Whether it knows next to nothing of the classes, by both.

        Two measures, since each alone is low for some sets that are known: skill for very many classes, information for
        two.
        """
        return self.skill < LEAST_SKILL and self.information < LEAST_INFORMATION


def knowledge(logits: Table) -> Knowledge:
    """Measure what CLIP believes of itself.

    Args:
        logits: Of all images, with no correction of the prior. Shape (N, C), of two classes at least.
    """

    def summed(rows: Tensor) -> Tensor:
        """Probabilities of the classes, the greatest of them, and the entropy. Shape (n, C + 2)."""
        logs = rows.double().log_softmax(dim=1)
        probabilities = logs.exp()
        greatest = probabilities.amax(dim=1, keepdim=True)
        return torch.cat([probabilities, greatest, -(probabilities * logs).sum(dim=1, keepdim=True)], dim=1)

    means = logits.map(summed).mean()
    of_classes, surest, entropy = means[:-2], float(means[-2]), float(means[-1])
    commonest = float(of_classes.max())
    marginal = -float(torch.xlogy(of_classes, of_classes).sum())
    information = (marginal - entropy) / math.log(len(of_classes))
    return Knowledge((surest - commonest) / max(1 - commonest, 1e-12), information)


def hardly_knows(logits: Table, num_classes: int) -> bool:
    """Whether CLIP hardly knows the classes; a warning then says so, and what to do.

    Args:
        logits: Of all images under the frozen CLIP, with no correction of the prior. Shape (N, C).
        num_classes: C.
    """
    if num_classes < 2:
        return False
    believed = knowledge(logits)
    if believed.hardly_any:
        log.info(
            "Guard: skill %.2f (least: %.2f), information %.2f of a class (least: %.2f)",
            *(believed.skill, LEAST_SKILL, believed.information, LEAST_INFORMATION),
        )
        log.warning(
            "CLIP can hardly tell these classes apart, so nothing is trained: labels are those of zero-shot CLIP. Give "
            "names that it knows, or another --backbone (embedded for drawings, photo for photographs), and another "
            "output folder. TRAIN.GUARD False (coft adapt: train__guard=False) trains all the same"
        )
    return believed.hardly_any
