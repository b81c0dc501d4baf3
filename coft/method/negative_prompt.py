"""The negative prompt, which gives each pseudo-label a probability of being right, with no threshold to set.

From a positive and a negative text feature of each class, every image has clean log-odds

    d(x, c) = s <f(x), t+_c> - s <f(x), t-_c>

and the dual loss makes sigmoid(d) high for the label in use and low for the other classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.labelling.classifier import clean_log_odds

FIT_STEPS = 200  # on digits and icons, labels by d are then as accurate as after 1,000 steps
FIT_RATE = 2e-3  # learning rate of Adam, for vectors of unit length
FIT_BATCH = 1024
FIT_IMAGES = FIT_STEPS * FIT_BATCH  # maximum number of images: as many as all batches together can hold


def dual_loss(log_odds: Tensor, label: Tensor) -> Tensor:
    """Compute L_dual(x, y) = -log sigmoid(d(x, y)) - mean over z != y of log sigmoid(-d(x, z)) of each image.

    This is the expectation of Algorithm 1 of DeFT (NeurIPS 2024), which draws one complement z. CoFT's Eq. 6 is
    reported with "+ log(1 - p_clean(z))"; minimised, that would raise p_clean(z), against the paper's own text, so the
    sign here is minus.

    Args:
        log_odds: d of every class. Shape (n, C).
        label: The label in use. Shape (n,).

    Returns:
        Loss of each image. Shape (n,).
    """
    at_label = log_odds.gather(1, label.unsqueeze(1)).squeeze(1)
    others = F.logsigmoid(-log_odds).scatter(1, label.unsqueeze(1), 0.0)
    return -(F.logsigmoid(at_label) + others.sum(dim=1) / (log_odds.shape[1] - 1))


def fit_negative(
    features: Tensor,
    labels: Tensor,
    weight: Tensor,
    positive: Tensor,
    negative: Tensor,
    scale: float,
    source: torch.Generator,
    steps: int = FIT_STEPS,
) -> Tensor:
    """Minimise the dual loss over the negative vectors, with image features and positive vectors fixed.

    While features still train, the negative vectors lag behind: the classification loss soon satisfies the positive
    part of d on the training images, and no gradient is left.

    Args:
        features: Unit-length image features. Shape (n, embed_dim).
        labels: Pseudo-labels of the images. Shape (n,).
        weight: Weights of the labels, above 0. Shape (n,).
        positive: Positive vectors of any length. Shape (C, embed_dim).
        negative: Initial negative vectors. Shape (C, embed_dim).
        scale: CLIP's logit scale.
        source: CPU generator that draws batches if there are more images than FIT_BATCH.
        steps: Number of Adam steps.

    Returns:
        Negative vectors of unit length, detached. Shape (C, embed_dim).
    """
    features, positive = features.detach().float(), F.normalize(positive.detach().float(), dim=-1)
    with torch.enable_grad(), torch.autocast(features.device.type, enabled=False):
        vectors = F.normalize(negative.detach().float(), dim=-1).requires_grad_(True)
        optimizer = torch.optim.Adam([vectors], lr=FIT_RATE)
        for _ in range(steps):
            batch = draw(len(features), source, FIT_BATCH).to(features.device)
            odds = clean_log_odds(features[batch], positive, F.normalize(vectors, dim=-1), scale)
            optimizer.zero_grad()
            each = dual_loss(odds, labels[batch])
            ((each * weight[batch]).sum() / weight[batch].sum().clamp_min(1e-12)).backward()
            optimizer.step()
    return F.normalize(vectors.detach(), dim=-1)


def draw(count: int, source: torch.Generator, most: int | None = None) -> Tensor:
    """Return the positions of all images, or of a random sample if there are too many.

    Args:
        count: Number of images.
        source: CPU generator, which is not used if all images are taken.
        most: Maximum number of positions. Default: FIT_IMAGES.

    Returns:
        Positions. Shape (n,).
    """
    most = FIT_IMAGES if most is None else most
    return torch.arange(count) if count <= most else torch.randperm(count, generator=source)[:most]
