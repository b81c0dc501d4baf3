"""The negative prompt: is this pseudo-label right? A probability for each sample, with no threshold to set.

A positive and a negative text feature of each class give every image a clean log-odds

    d(x, c) = s <f(x), t+_c> - s <f(x), t-_c>

and the dual loss makes sigmoid(d) high for the label in use and low for the other classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.core.world import ALONE, World

FIT_STEPS = 200  # on digits and icons labels by d are then as often right as after 1,000
FIT_RATE = 2e-3  # of Adam, for vectors of unit length
FIT_BATCH = 1024
FIT_IMAGES = FIT_STEPS * FIT_BATCH  # images at most: all that the batches together could hold


def clean_log_odds(features: Tensor, positive: Tensor, negative: Tensor, scale: Tensor | float) -> Tensor:
    """Compute d(x, c), with the positive text features detached and nothing else.

    The image features are live in both terms, so the negative prompt also regularises what trains in the image
    encoder; the positive prompt learns from the classification loss alone.

    Args:
        features: Unit-length image features. Shape (n, embed_dim).
        positive: Unit-length positive text features t+. Shape (C, embed_dim).
        negative: Unit-length negative text features t-. Shape (C, embed_dim).
        scale: CLIP's logit scale s (the inverse temperature).

    Returns:
        Clean log-odds. Shape (n, C).
    """
    return scale * features @ (positive.detach() - negative).t()


def dual_loss(log_odds: Tensor, label: Tensor, complement: Tensor, count: int | None = None) -> Tensor:
    """L_dual(x, y, z) = -log sigmoid(d(x, y)) - log sigmoid(-d(x, z)), averaged over the batch.

    Published as Algorithm 1 of DeFT (NeurIPS 2024). CoFT's Eq. 6 is reported with "+ log(1 - p_clean(z))"; minimised,
    that would raise p_clean(z), against the paper's own text, so the sign here is minus.

    Args:
        log_odds: d of every class. Shape (n, C).
        label: The label in use, y. Shape (n,).
        complement: A class other than y for each sample, z. Shape (n,).
        count: Images of the whole batch, where these are a part of it; the result is then its part of the average.

    Returns:
        A scalar.
    """
    at_label = log_odds.gather(1, label.unsqueeze(1)).squeeze(1)
    at_complement = log_odds.gather(1, complement.unsqueeze(1)).squeeze(1)
    return -(F.logsigmoid(at_label) + F.logsigmoid(-at_complement)).sum() / (count or len(label))


def draw_complement(label: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
    """Draw z uniformly over the classes other than the label. Shape (n,), as `label`."""
    shift = torch.randint(1, num_classes, label.shape, generator=generator).to(label.device)
    return (label + shift) % num_classes


def expected_dual_loss(
    log_odds: Tensor, label: Tensor, weight: Tensor | None = None, count: int | None = None
) -> Tensor:
    """The dual loss averaged over all complements: what `dual_loss` is in expectation, without the noise of the draw.

    Args:
        log_odds: d of every class. Shape (n, C).
        label: The label in use. Shape (n,).
        weight: How much each image counts in the mean; without it all count alike. Shape (n,).
        count: As of `dual_loss`, where all count alike.

    Returns:
        A scalar.
    """
    at_label = log_odds.gather(1, label.unsqueeze(1)).squeeze(1)
    others = F.logsigmoid(-log_odds).scatter(1, label.unsqueeze(1), 0.0)
    each = -(F.logsigmoid(at_label) + others.sum(dim=1) / (log_odds.shape[1] - 1))
    return each.sum() / (count or len(each)) if weight is None else (each * weight).sum() / weight.sum()


def coupled(log_odds: Tensor) -> Tensor:
    """Probabilities of the labels, given that exactly one of them is right: softmax over the classes of d.

    If label c is right with probability q_c given x, the dual loss is least where d_c = logit(q_c) + log(C - 1). Of C
    independent events exactly event c happens with a probability in proportion to the odds q_c / (1 - q_c), which is
    exp(d_c) but for a factor that the classes share.
    """
    return log_odds.softmax(dim=-1)


# How clean log-odds (n, C) become p_clean (n, C). "raw" is the rule as printed in the paper.
CLEAN_RULES: dict[str, Callable[[Tensor], Tensor]] = {"coupled": coupled, "raw": torch.sigmoid}


def p_clean(log_odds: Tensor, rule: str) -> Tensor:
    """Turn clean log-odds into the probability that each label is right.

    Args:
        log_odds: d of every class. Shape (n, C).
        rule: A name of `CLEAN_RULES`.

    Returns:
        Probabilities, shape (n, C); a label counts as clean where its own is above 1/2.
    """
    return CLEAN_RULES[rule](log_odds)


def separation(log_odds: Tensor, label: Tensor, world: World = ALONE) -> float:
    """How well d tells the label in use from the other classes: AUC over all pairs of d(x, y) and d(x', z).

    Args:
        log_odds: d of every class. Shape (n, C).
        label: The label in use. Shape (n,).
        world: Its ranks have a part of the rows each.

    Returns:
        Area under the ROC curve, in [0, 1].
    """
    log_odds, label = log_odds.detach().cpu(), label.cpu()
    in_use = world.gather(log_odds.gather(1, label.unsqueeze(1)).squeeze(1)).sort().values
    lost = 0.0  # pairs in which the other class is above the label in use; equal ones count half
    for c, column in enumerate(log_odds.unbind(dim=1)):  # a class at a time: all of them would fill the memory
        others = column[label != c].contiguous()
        places = [torch.searchsorted(in_use, others, right=right).double().sum() for right in (False, True)]
        lost += float(sum(places, torch.zeros(()))) / 2
    lost = float(world.sum(torch.tensor(lost, dtype=torch.float64)))
    return 1 - lost / (len(in_use) ** 2 * (log_odds.shape[1] - 1))


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
            expected_dual_loss(odds, labels[batch], weight[batch]).backward()
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
