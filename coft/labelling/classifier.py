"""A classifier: an image encoder with a positive and a negative vector for each class."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEADS = ("positive", "negative")  # a classifier's vectors
Scores = tuple[Tensor, Tensor]  # logits l+ and clean log-odds d of some images, shape (n, C) each

# How logits l+ and clean log-odds d become the score that a class is chosen by.
SCORES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "both-prompts": lambda logits, log_odds: (
        (logits + log_odds) / 2
    ),  # of which the softmax is the geometric mean of p and p_clean
    "positive": lambda logits, log_odds: logits,
}


def softmax_rule(log_odds: Tensor) -> Tensor:
    """Probabilities of the labels, given that exactly one of them is right: softmax over the classes of d.

    If label c is right with probability q_c given x, the dual loss is least where d_c = logit(q_c) + log(C - 1). Of C
    independent events exactly event c happens with a probability in proportion to the odds q_c / (1 - q_c), which is
    exp(d_c) but for a factor that the classes share.
    """
    return log_odds.softmax(dim=-1)


# How clean log-odds (n, C) become p_clean (n, C), the probability that each label is right: it counts as clean where
# that is above 1/2. "sigmoid" is the rule as printed in the paper.
CLEAN_RULES: dict[str, Callable[[Tensor], Tensor]] = {"softmax": softmax_rule, "sigmoid": torch.sigmoid}


class Classifier(nn.Module):
    """An image encoder with a positive and a negative vector for each class.

    Args:
        encoder: Images (n, 3, size, size) to features (n, embed_dim).
        positive: Shape (C, embed_dim); its direction counts, not its length.
        negative: Shape (C, embed_dim); its direction counts, too. None: there is no negative prompt.
        scale: CLIP's logit scale.
        negative_to_visual: Whether the clean log-odds pass gradients on to the encoder.
    """

    def __init__(
        self,
        encoder: nn.Module,
        positive: Tensor,
        negative: Tensor | None,
        scale: float,
        negative_to_visual: bool = True,
    ) -> None:
        super().__init__()
        shapes = [tuple(vectors.shape) for vectors in (positive, negative) if vectors is not None]
        if len(set(shapes)) > 1 or len(shapes[0]) != 2:
            raise ValueError(f"vectors of the classes have shapes {shapes}, not (C, embed_dim)")
        self.encoder = encoder
        self.positive: Tensor = positive
        self.negative: Tensor | None = negative
        self.scale = scale
        self.negative_to_visual = negative_to_visual

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.positive.device

    def features(self, images: Tensor) -> Tensor:
        """Unit-length image features, in fp32 at least. Shape (n, embed_dim).

        Args:
            images: Shape (n, 3, size, size), on any device.
        """
        return F.normalize(self.encoder(images.to(self.device)).to(self.positive.dtype), dim=-1)

    def classify(self, features: Tensor) -> Scores:
        """Compare image features with the classes' vectors.

        Args:
            features: Unit-length, or means of such. Shape (n, embed_dim).

        Returns:
            Logits l+ and clean log-odds d, each of shape (n, C), in fp32 at least; d is 0 without a negative prompt.
        """
        positive = F.normalize(self.positive, dim=-1)
        routed = features if self.negative_to_visual else features.detach()
        with torch.autocast(features.device.type, enabled=False):  # d is a small difference of large numbers
            logits = self.scale * features @ positive.t()
            if self.negative is None:
                return logits, torch.zeros_like(logits)
            negative = F.normalize(self.negative, dim=-1)
            return logits, clean_log_odds(routed, positive, negative, self.scale)

    @property
    def negative_vectors(self) -> Tensor:
        """The negative vectors of a classifier that has some. Shape (C, embed_dim)."""
        assert self.negative is not None
        return self.negative

    def forward(self, images: Tensor) -> Scores:
        """Logits and clean log-odds of images; see `classify`."""
        return self.classify(self.features(images))


def clean_log_odds(features: Tensor, positive: Tensor, negative: Tensor, scale: Tensor | float) -> Tensor:
    """Compute d(x, c) = s <f(x), t+_c> - s <f(x), t-_c>, with the positive vectors detached and nothing else.

    The image features are live in both terms, so the negative prompt also regularises what trains in the image
    encoder; the positive prompt learns from the classification loss alone.

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
    """Average two classifiers of one shape, weight by weight: (1 - weight) start + weight end (WiSE-FT).

    Args:
        start: The one.
        end: The other.
        weight: Its share.
        heads: Heads that are averaged, as unit vectors; others are those of `end`.

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
