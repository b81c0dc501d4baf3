"""The guard: a check, before anything is trained, that CLIP knows the classes, by its own probabilities alone."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from coft.core.table import Table

log = logging.getLogger(__name__)
MIN_SKILL = 0.22  # just above EuroSAT's, where training can lose; on other sets it gained at every skill
MIN_INFORMATION = 1 / 4


@dataclass(frozen=True)
class Knowledge:
    """CLIP's own estimate of how well it knows the classes, from its predictions of unlabeled images.

    Attributes:
        skill: Expected accuracy above that of always predicting the commonest class: (mean of max_c p - m) / (1 - m),
            where m is the greatest mean probability of a class.
        information: Mutual information of image and class, as a share of log C: 0 if all images look the same to CLIP,
            1 if it is certain of each image and classes are of equal size.
    """

    skill: float
    information: float

    @property
    def is_insufficient(self) -> bool:
        """Whether both measures are below their bounds.

        Each measure alone is low on some data sets whose classes CLIP does know: skill with very many classes,
        information with two.
        """
        return self.skill < MIN_SKILL and self.information < MIN_INFORMATION


def measure_knowledge(logits: Table) -> Knowledge:
    """Measure CLIP's own estimate of how well it knows the classes.

    Args:
        logits: Logits of all images, without prior correction. Shape (N, C), with C at least 2.
    """

    def summed(rows: Tensor) -> Tensor:
        """Return class probabilities, the greatest of them, and the entropy. Shape (n, C + 2)."""
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


def guard_fires(logits: Table) -> bool:
    """Return whether CLIP hardly knows the classes; if so, log a warning with advice.

    Args:
        logits: The frozen CLIP's logits of all images, without prior correction. Shape (N, C), with C at least 2.
    """
    believed = measure_knowledge(logits)
    if believed.is_insufficient:
        log.info(
            "Guard: skill %.2f (minimum %.2f), mutual information %.2f log C (minimum %.2f log C)",
            *(believed.skill, MIN_SKILL, believed.information, MIN_INFORMATION),
        )
        log.warning(
            "CLIP can hardly tell these classes apart, so nothing is trained: zero-shot CLIP predicts. Use class names "
            "that it knows, or another --backbone (embedded for drawings, photo for photographs), and another output "
            "folder. To train anyway, set TRAIN.GUARD False (coft adapt: train__guard=False)"
        )
    return believed.is_insufficient
