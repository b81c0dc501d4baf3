"""Cleanliness: is this pseudo-label right? A probability for each sample, with no threshold to set.

The negative-prompt head. A positive and a negative text feature of each class give every image a clean log-odds

    d(x, c) = s <f(x), t+_c> - s <f(x), t-_c>

and the dual loss teaches sigmoid(d) to be high for the label in use and low for another class drawn at random.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

CLEAN_RULES = ("calibrated", "raw")


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


def p_clean(log_odds: Tensor, num_classes: int, rule: str = "calibrated") -> Tensor:
    """Turn clean log-odds into the probability that the label is right.

    If label y is right with probability q given x, and z is drawn as in `draw_complement`, the dual loss is least where
    sigmoid(d) = q / (q + (1 - q) / (C - 1)), that is d = logit(q) + log(C - 1). Hence q = sigmoid(d - log(C - 1)).

    Args:
        log_odds: d, any shape.
        num_classes: C.
        rule: "calibrated" for q, or "raw" for sigmoid(d), the rule as printed in the paper.

    Returns:
        Probabilities, of the shape of `log_odds`; a label counts as clean where its own is above 1/2.
    """
    shift = math.log(num_classes - 1) if rule == "calibrated" else 0.0
    return torch.sigmoid(log_odds - shift)


def separation(log_odds: Tensor, label: Tensor) -> float:
    """How well d tells the label in use from the other classes: AUC over all pairs of d(x, y) and d(x', z).

    Args:
        log_odds: d of every class. Shape (n, C).
        label: The label in use. Shape (n,).

    Returns:
        Area under the ROC curve, in [0, 1].
    """
    from sklearn.metrics import roc_auc_score

    in_use = F.one_hot(label, log_odds.shape[1]).bool()
    return float(roc_auc_score(in_use.flatten().cpu().numpy(), log_odds.detach().flatten().float().cpu().numpy()))
