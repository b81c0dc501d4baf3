"""The losses of pre-training: contrast with several positives, and a bag of words."""

import torch
import torch.nn.functional as F
from torch import Tensor

from weights.pretrain.model import Features


def same(labels: Tensor, texts: Tensor) -> Tensor:
    """Which pictures and captions are positives: same concept or same words; bool ``[B, B]``."""
    return (labels[:, None] == labels) | (texts[:, None] == texts)


def contrast(features: Features, scale: Tensor, positives: Tensor) -> Tensor:
    """Symmetric InfoNCE whose targets are divided evenly among the positives.

    Args:
        features: B pairs.
        scale: The logit scale, a scalar.
        positives: bool ``[B, B]``, symmetric, true on the diagonal.
    """
    logits = scale * features.image @ features.text.t()
    targets = positives.float() / positives.sum(1, keepdim=True)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.t(), targets)) / 2


def bag_of_words(logits: Tensor, words: Tensor) -> Tensor:
    """Cross entropy against an even share for each word of the name. Names without frequent words do not count.

    Args:
        logits: Logits of the words, ``[B, W]``.
        words: Which words the names have, bool ``[B, W]``.
    """
    count = words.sum(1)
    loss = F.cross_entropy(logits.float(), words.float() / count.clamp_min(1)[:, None], reduction="none")
    return (loss * (count > 0)).sum() / (count > 0).sum().clamp_min(1)


def clamp_scale(logit_scale: Tensor) -> None:
    """Limit the scale to 100, as CLIP does."""
    with torch.no_grad():
        logit_scale.clamp_(max=float(torch.log(torch.tensor(100.0))))
