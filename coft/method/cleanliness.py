"""Cleanliness: is this pseudo-label right? A probability for each sample, with no threshold to set.

The negative-prompt head. A positive and a negative text feature of each class give every image a clean log-odds

    d(x, c) = s <f(x), t+_c> - s <f(x), t-_c>

and the dual loss teaches sigmoid(d) to be high for the label in use and low for the other classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


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


def dual_loss(log_odds: Tensor, label: Tensor, complement: Tensor) -> Tensor:
    """L_dual(x, y, z) = -log sigmoid(d(x, y)) - log sigmoid(-d(x, z)), averaged over the batch.

    Published as Algorithm 1 of DeFT (NeurIPS 2024). CoFT's Eq. 6 is reported with "+ log(1 - p_clean(z))"; minimised,
    that would raise p_clean(z), against the paper's own text, so the sign here is minus.

    Args:
        log_odds: d of every class. Shape (n, C).
        label: The label in use, y. Shape (n,).
        complement: A class other than y for each sample, z. Shape (n,).

    Returns:
        A scalar.
    """
    at_label = log_odds.gather(1, label.unsqueeze(1)).squeeze(1)
    at_complement = log_odds.gather(1, complement.unsqueeze(1)).squeeze(1)
    return -(F.logsigmoid(at_label) + F.logsigmoid(-at_complement)).mean()


def draw_complement(label: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
    """Draw z uniformly over the classes other than the label. Shape (n,), as `label`."""
    shift = torch.randint(1, num_classes, label.shape, generator=generator).to(label.device)
    return (label + shift) % num_classes


def expected_dual_loss(log_odds: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
    """The dual loss averaged over all complements: what `dual_loss` is in expectation, without the noise of the draw.

    Args:
        log_odds: d of every class. Shape (n, C).
        label: The label in use. Shape (n,).
        weight: How much each image counts in the mean; without it all count alike. Shape (n,).

    Returns:
        A scalar.
    """
    at_label = log_odds.gather(1, label.unsqueeze(1)).squeeze(1)
    others = F.logsigmoid(-log_odds).scatter(1, label.unsqueeze(1), 0.0)
    each = -(F.logsigmoid(at_label) + others.sum(dim=1) / (log_odds.shape[1] - 1))
    return each.mean() if weight is None else (each * weight).sum() / weight.sum()


def _all_complements(log_odds: Tensor, label: Tensor, generator: torch.Generator) -> Tensor:
    return expected_dual_loss(log_odds, label)


def _drawn_complement(log_odds: Tensor, label: Tensor, generator: torch.Generator) -> Tensor:
    return dual_loss(log_odds, label, draw_complement(label, log_odds.shape[1], generator))


# The key COMPLEMENTS names one of these.
DUAL_LOSSES: dict[str, Callable[[Tensor, Tensor, torch.Generator], Tensor]] = {
    "all": _all_complements,
    "drawn": _drawn_complement,
}


def coupled(log_odds: Tensor) -> Tensor:
    """Probabilities of the labels, given that exactly one of them is right: softmax over the classes of d.

    With q_c as `calibrated` gives it, exactly class c of C independent events happens with a probability in
    proportion to the odds q_c / (1 - q_c), which is exp(d_c) but for a factor that the classes share.
    """
    return log_odds.softmax(dim=-1)


def open_set(log_odds: Tensor) -> Tensor:
    """Probabilities of the labels, given that at most one of them is right: an image may be of no class.

    As `coupled`, with one more event, that none is right, whose odds are 1: that is a softmax over the classes of d
    and, for none, log(C - 1).
    """
    none = torch.full_like(log_odds[..., :1], math.log(log_odds.shape[-1] - 1))
    return torch.cat([log_odds, none], dim=-1).softmax(dim=-1)[..., :-1]


def calibrated(log_odds: Tensor) -> Tensor:
    """Probability that each label is right, for itself: sigmoid(d - log(C - 1)).

    If label y is right with probability q given x, and z is drawn as in `draw_complement`, the dual loss is least where
    sigmoid(d) = q / (q + (1 - q) / (C - 1)), that is d = logit(q) + log(C - 1).
    """
    return torch.sigmoid(log_odds - math.log(log_odds.shape[-1] - 1))


# How clean log-odds (n, C) become p_clean (n, C). "raw" is the rule as printed in the paper.
CLEAN_RULES: dict[str, Callable[[Tensor], Tensor]] = {
    "open": open_set,
    "coupled": coupled,
    "calibrated": calibrated,
    "raw": torch.sigmoid,
}


def p_clean(log_odds: Tensor, rule: str) -> Tensor:
    """Turn clean log-odds into the probability that each label is right.

    Args:
        log_odds: d of every class. Shape (n, C).
        rule: A name of `CLEAN_RULES`.

    Returns:
        Probabilities, shape (n, C); a label counts as clean where its own is above 1/2.
    """
    return CLEAN_RULES[rule](log_odds)


def separation(log_odds: Tensor, label: Tensor) -> float:
    """How well d tells the label in use from the other classes: AUC over all pairs of d(x, y) and d(x', z).

    Args:
        log_odds: d of every class. Shape (n, C).
        label: The label in use. Shape (n,).

    Returns:
        Area under the ROC curve, in [0, 1].
    """
    log_odds, label = log_odds.detach().cpu(), label.cpu()
    in_use = log_odds.gather(1, label.unsqueeze(1)).squeeze(1).sort().values
    lost = 0.0  # pairs in which the other class is above the label in use; equal ones count half
    for c, column in enumerate(log_odds.unbind(dim=1)):  # a class at a time: all of them would fill the memory
        others = column[label != c].contiguous()
        places = [torch.searchsorted(in_use, others, right=right).double().sum() for right in (False, True)]
        lost += float(sum(places, torch.zeros(()))) / 2
    return 1 - lost / (len(label) ** 2 * (log_odds.shape[1] - 1))
