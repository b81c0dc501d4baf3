"""A classifier: an image encoder with a positive and a negative vector for each class."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEADS = ("positive", "negative")  # attributes of a classifier that hold class vectors
Scores = tuple[Tensor, Tensor]  # logits l+ and clean log-odds d, shape (n, C) each

# Functions of logits l+ and clean log-odds d that give the score by which a class is predicted.
SCORES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "both-prompts": lambda logits, log_odds: (
        (logits + log_odds) / 2
    ),  # its softmax is the normalised geometric mean of p and p_clean
    "positive": lambda logits, log_odds: logits,
}


def softmax_rule(log_odds: Tensor) -> Tensor:
    """Compute the probability of each label given that exactly one of them is right: softmax of d over the classes.

    If label c is right with probability q_c given x, the dual loss is minimal at d_c = logit(q_c) + log(C - 1). Of C
    independent events, the probability that event c alone happens is proportional to the odds q_c / (1 - q_c). These
    are exp(d_c) up to a factor that all classes share.
    """
    return log_odds.softmax(dim=-1)


# Functions from clean log-odds (n, C) to p_clean (n, C), the probability that each label is right. A label counts as
# clean if p_clean is above 1/2. "sigmoid" is the rule as printed in the paper.
CLEAN_RULES: dict[str, Callable[[Tensor], Tensor]] = {"softmax": softmax_rule, "sigmoid": torch.sigmoid}


class Classifier(nn.Module):
    """An image encoder with a positive and a negative vector for each class.

    Args:
        encoder: Image encoder, from images (n, 3, size, size) to features (n, embed_dim).
        positive: Positive vectors, of which only the direction matters. Shape (C, embed_dim).
        negative: Negative vectors, of which only the direction matters. Shape (C, embed_dim); None without a negative
            prompt.
        scale: CLIP's logit scale.
    """

    def __init__(self, encoder: nn.Module, positive: Tensor, negative: Tensor | None, scale: float) -> None:
        super().__init__()
        shapes = [tuple(vectors.shape) for vectors in (positive, negative) if vectors is not None]
        if len(set(shapes)) > 1 or len(shapes[0]) != 2:
            raise ValueError(f"class vectors must all have shape (C, embed_dim), not {shapes}")
        self.encoder = encoder
        self.positive: Tensor = positive
        self.negative: Tensor | None = negative
        self.scale = scale

    @property
    def device(self) -> torch.device:
        """Device of the positive vectors, to which images are moved."""
        return self.positive.device

    def features(self, images: Tensor) -> Tensor:
        """Compute unit-length image features, in fp32 at least. Shape (n, embed_dim).

        Args:
            images: Shape (n, 3, size, size), on any device.
        """
        return F.normalize(self.encoder(images.to(self.device)).to(self.positive.dtype), dim=-1)

    def classify(self, features: Tensor) -> Scores:
        """Compute logits and clean log-odds from image features.

        Args:
            features: Image features of unit length, or means of such features over views. Shape (n, embed_dim).

        Returns:
            Logits l+ and clean log-odds d, each of shape (n, C), in fp32 at least; d is 0 without a negative prompt.
        """
        positive = F.normalize(self.positive, dim=-1)
        with torch.autocast(features.device.type, enabled=False):  # d is a small difference of large numbers
            logits = self.scale * features @ positive.t()
            if self.negative is None:
                return logits, torch.zeros_like(logits)
            negative = F.normalize(self.negative, dim=-1)
            return logits, clean_log_odds(features, positive, negative, self.scale)

    @property
    def negative_vectors(self) -> Tensor:
        """Negative vectors, which the classifier must have. Shape (C, embed_dim)."""
        assert self.negative is not None
        return self.negative

    def forward(self, images: Tensor) -> Scores:
        """Compute logits and clean log-odds of images; see `classify`."""
        return self.classify(self.features(images))


def clean_log_odds(features: Tensor, positive: Tensor, negative: Tensor, scale: Tensor | float) -> Tensor:
    """Compute d(x, c) = s <f(x), t+_c> - s <f(x), t-_c>, where only the positive vectors are detached.

    The image features have gradients in both terms, so the negative prompt also regularises the image encoder. The
    positive prompt learns from the classification loss alone.

    Args:
        features: Unit-length image features. Shape (n, embed_dim).
        positive: Unit-length positive vectors t+. Shape (C, embed_dim).
        negative: Unit-length negative vectors t-. Shape (C, embed_dim).
        scale: CLIP's logit scale s (the inverse temperature).

    Returns:
        Clean log-odds. Shape (n, C).
    """
    return scale * features @ (positive.detach() - negative).t()


def interpolate(start: Classifier, end: Classifier, weight: float, heads: Sequence[str] = HEADS) -> Classifier:
    """Average the weights of two classifiers of the same shape: (1 - weight) start + weight end (WiSE-FT).

    Args:
        start: Classifier before fine-tuning.
        end: Classifier after fine-tuning.
        weight: Share of `end`.
        heads: Names of the heads that are averaged, as unit vectors. The others are taken from `end`.

    Returns:
        A new classifier.
    """
    result = copy.deepcopy(end).requires_grad_(False)
    with torch.no_grad():
        starts = dict(start.encoder.named_parameters())
        for name, value in result.encoder.named_parameters():
            value.copy_(value.lerp(starts[name].to(value.dtype), 1 - weight))
        for name in heads:
            a, b = (F.normalize(getattr(c, name).detach(), dim=-1) for c in (start, end))
            getattr(result, name).copy_(a.lerp(b, weight))
    return result
