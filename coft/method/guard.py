"""Does CLIP know these classes at all? Asked before anything is trained, by its own probabilities and no label."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from coft.core.tables import chunks
from coft.core.world import ALONE, World

from .labeller import first_features, zero_shot_logits
from .protocol import Backbone, Images, Runtime

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


def knowledge(logits: Tensor, world: World = ALONE) -> Knowledge:
    """Measure what CLIP believes of itself.

    Args:
        logits: Of all images, with no correction of the prior. Shape (N, C), of two classes at least.
        world: Its ranks have a part of the rows each.
    """
    classes, images = logits.shape[1], world.total(len(logits))
    mean, surest, entropy = torch.zeros(classes, dtype=torch.float64), 0.0, 0.0
    for (rows,) in chunks(logits):
        logs = rows.double().log_softmax(dim=1)
        own = logs.exp()
        mean += own.sum(dim=0) / images
        surest += float(own.amax(dim=1).sum()) / images
        entropy -= float((own * logs).sum()) / images
    mean = world.sum(mean)
    surest, entropy = world.sum(torch.tensor([surest, entropy], dtype=torch.float64)).tolist()
    commonest = float(mean.max())
    of_classes = -float(torch.xlogy(mean, mean).sum())
    return Knowledge((surest - commonest) / max(1 - commonest, 1e-12), (of_classes - entropy) / math.log(classes))


def hardly_knows(backbone: Backbone, text: Tensor, images: Images, runtime: Runtime, num_views: int) -> bool:
    """Whether CLIP hardly knows the classes; a warning then says so, and what to do.

    Args:
        backbone: CLIP for the classes.
        text: Features of the classes, unit length. Shape (C, embed_dim).
        images: The unlabeled images.
        runtime: Where and how to compute.
        num_views: Views of an image that its features are the mean of.
    """
    if len(text) < 2:
        return False
    features = first_features(images, backbone, runtime, num_views)
    known = knowledge(zero_shot_logits(features, text, backbone.scale, runtime), runtime.world)
    if known.hardly_any:
        log.warning(
            "CLIP hardly knows these classes: its skill, as it sees it, is %.2f (least: %.2f), and an image "
            "tells it %.2f of a class (least: %.2f). So nothing is trained, and zero-shot CLIP is kept. Give names "
            "that it knows, or another backbone; TRAIN.GUARD False trains all the same",
            *(known.skill, LEAST_SKILL, known.information, LEAST_INFORMATION),
        )
    return known.hardly_any
