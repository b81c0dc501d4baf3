"""Fitting the negative vectors: the dual loss at its minimum for the image features as they are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.method.cleanliness import clean_log_odds, expected_dual_loss

STEPS = 200  # on digits and icons labels by d are then as often right as after 1,000
LEARNING_RATE = 2e-3  # of Adam, for vectors of unit length
BATCH = 1024
MOST = STEPS * BATCH  # images that all batches together could hold


def fit_negative(
    features: Tensor,
    labels: Tensor,
    weight: Tensor,
    positive: Tensor,
    negative: Tensor,
    scale: float,
    source: torch.Generator,
    steps: int = STEPS,
) -> Tensor:
    """Minimise the dual loss over the negative vectors, image features and positive vectors as they are.

    While features move, the negative vectors lag behind: the classification loss soon satisfies the positive part of d
    on the images at hand, and no gradient is left.

    Args:
        features: Unit-length image features. Shape (n, embed_dim).
        labels: Their pseudo-labels. Shape (n,).
        weight: How much each of them counts, above 0. Shape (n,).
        positive: Positive vectors of any length. Shape (C, embed_dim).
        negative: Where the negative vectors start. Shape (C, embed_dim).
        scale: CLIP's logit scale.
        source: CPU generator of the batches, where there are more images than BATCH.
        steps: Steps of Adam.

    Returns:
        Negative vectors of unit length, detached. Shape (C, embed_dim).
    """
    features, positive = features.detach().float(), F.normalize(positive.detach().float(), dim=-1)
    with torch.enable_grad(), torch.autocast(features.device.type, enabled=False):
        vectors = F.normalize(negative.detach().float(), dim=-1).requires_grad_(True)
        optimizer = torch.optim.Adam([vectors], lr=LEARNING_RATE)
        for _ in range(steps):
            batch = draw(len(features), source, BATCH).to(features.device)
            odds = clean_log_odds(features[batch], positive, F.normalize(vectors, dim=-1), scale)
            optimizer.zero_grad()
            expected_dual_loss(odds, labels[batch], weight[batch]).backward()
            optimizer.step()
    return F.normalize(vectors.detach(), dim=-1)


def draw(count: int, source: torch.Generator, most: int | None = None) -> Tensor:
    """Places of all of some images, or of so many at random.

    Args:
        count: Number of images.
        source: CPU generator; not drawn from where all are taken.
        most: How many at most; by default MOST.

    Returns:
        Shape (n,).
    """
    most = MOST if most is None else most
    return torch.arange(count) if count <= most else torch.randperm(count, generator=source)[:most]
