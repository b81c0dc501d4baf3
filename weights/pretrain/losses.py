"""Losses of pre-training: a contrastive loss with several positives, and a bag-of-words loss."""

import torch
import torch.nn.functional as F
from torch import Tensor

from weights.pretrain.model import Features


def same(labels: Tensor, texts: Tensor) -> Tensor:
    """Return the mask of positive pairs of pictures and captions: same concept or same words; bool ``[B, B]``."""
    return (labels[:, None] == labels) | (texts[:, None] == texts)


def contrast(features: Features, scale: Tensor, positives: Tensor) -> Tensor:
    """Compute symmetric InfoNCE with targets divided evenly among the positives.

    Args:
        features: Features of B pairs.
        scale: Logit scale, a scalar.
        positives: Mask of positive pairs, bool ``[B, B]``, symmetric, true on the diagonal.
    """
    logits = scale * features.image @ features.text.t()
    targets = positives.float() / positives.sum(1, keepdim=True)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.t(), targets)) / 2


def bag_of_words(logits: Tensor, words: Tensor) -> Tensor:
    """Compute the cross entropy to equal probabilities of a name's words. Names without any of the W words are ignored.

    Args:
        logits: Logits of the words, ``[B, W]``.
        words: Mask of the words of each name, bool ``[B, W]``.
    """
    count = words.sum(1)
    loss = F.cross_entropy(logits.float(), words.float() / count.clamp_min(1)[:, None], reduction="none")
    return (loss * (count > 0)).sum() / (count > 0).sum().clamp_min(1)


def clamp_scale(logit_scale: Tensor) -> None:
    """Limit the scale to 100, as CLIP does."""
    with torch.no_grad():
        logit_scale.clamp_(max=float(torch.log(torch.tensor(100.0))))
