"""The negative prompt: is this pseudo-label right? A probability for each sample, with no threshold to set.

A positive and a negative text feature of each class give every image a clean log-odds

    d(x, c) = s <f(x), t+_c> - s <f(x), t-_c>

and the dual loss makes sigmoid(d) high for the label in use and low for the other classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.labelling.classifier import clean_log_odds

FIT_STEPS = 200  # on digits and icons labels by d are then as often right as after 1,000
FIT_RATE = 2e-3  # of Adam, for vectors of unit length
FIT_BATCH = 1024
FIT_IMAGES = FIT_STEPS * FIT_BATCH  # images at most: all that the batches together could hold


def dual_loss(log_odds: Tensor, label: Tensor, complement: Tensor) -> Tensor:
    """L_dual(x, y, z) = -log sigmoid(d(x, y)) - log sigmoid(-d(x, z)) of each image.

    Published as Algorithm 1 of DeFT (NeurIPS 2024). CoFT's Eq. 6 is reported with "+ log(1 - p_clean(z))"; minimised,
    that would raise p_clean(z), against the paper's own text, so the sign here is minus.

    Args:
        log_odds: d of every class. Shape (n, C).
        label: The label in use, y. Shape (n,).
        complement: A class other than y for each sample, z. Shape (n,).

    Returns:
        Shape (n,).
    """
    at_label = log_odds.gather(1, label.unsqueeze(1)).squeeze(1)
    at_complement = log_odds.gather(1, complement.unsqueeze(1)).squeeze(1)
    return -(F.logsigmoid(at_label) + F.logsigmoid(-at_complement))


def draw_complement(label: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
    """Draw z uniformly over the classes other than the label. Shape (n,), on the device of `label`."""
    shift = torch.randint(1, num_classes, label.shape, generator=generator).to(label.device)
    return (label + shift) % num_classes


def expected_dual_loss(log_odds: Tensor, label: Tensor) -> Tensor:
    """The mean of `dual_loss` over all complements: its expectation, without the noise of the draw.

    Args:
        log_odds: d of every class. Shape (n, C).
        label: The label in use. Shape (n,).

    Returns:
        Shape (n,).
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
        source: CPU generator of the batches, where there are more images than FIT_BATCH.
        steps: Steps of Adam.

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
            each = expected_dual_loss(odds, labels[batch])
            ((each * weight[batch]).sum() / weight[batch].sum()).backward()
            optimizer.step()
    return F.normalize(vectors.detach(), dim=-1)


def draw(count: int, source: torch.Generator, most: int | None = None) -> Tensor:
    """Positions of all of some images, or of so many at random.

    Args:
        count: Number of images.
        source: CPU generator; not drawn from where all are taken.
        most: How many at most; by default FIT_IMAGES.

    Returns:
        Shape (n,).
    """
    most = FIT_IMAGES if most is None else most
    return torch.arange(count) if count <= most else torch.randperm(count, generator=source)[:most]
