"""A classifier: an image encoder with a positive and a negative vector for each class."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from coft.method.negative_prompt import clean_log_odds

HEADS = ("positive", "negative")  # a classifier's vectors


class Classifier(nn.Module):
    """An image encoder with a positive and a negative vector for each class.

    Args:
        encoder: Images (n, 3, size, size) to features (n, embed_dim).
        positive: Shape (C, embed_dim); its direction counts, not its length.
        negative: Shape (C, embed_dim), likewise.
        scale: CLIP's logit scale.
        negative_to_visual: Whether the clean log-odds pass gradients on to the encoder.
        micro_batch: While training, so many images go through the encoder at a time, and their activations are not
            kept but computed again for the gradients: memory for one micro-batch, a third more time. 0: all at once.
    """

    def __init__(
        self,
        encoder: nn.Module,
        positive: Tensor,
        negative: Tensor,
        scale: float,
        negative_to_visual: bool = True,
        micro_batch: int = 0,
    ) -> None:
        super().__init__()
        if positive.shape != negative.shape or positive.dim() != 2:
            raise ValueError(
                f"positive and negative have shapes {positive.shape} and {negative.shape}, not (C, embed_dim)"
            )
        self.encoder = encoder
        self.micro_batch = micro_batch
        self.positive: Tensor = positive
        self.negative: Tensor = negative
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
        images = images.to(self.device)
        if self.micro_batch and torch.is_grad_enabled():
            parts = images.split(self.micro_batch)
            # No random number is drawn in an encoder, and statistics of batch norms stay: the same as all at once.
            encoded = torch.cat([recompute(self.encoder, part, use_reentrant=False) for part in parts])
        else:
            encoded = self.encoder(images)
        return F.normalize(encoded.to(self.positive.dtype), dim=-1)

    def classify(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Compare image features with the classes' vectors.

        Returns:
            Logits l+ and clean log-odds d, each of shape (n, C), in fp32 at least.
        """
        positive, negative = F.normalize(self.positive, dim=-1), F.normalize(self.negative, dim=-1)
        routed = features if self.negative_to_visual else features.detach()
        with torch.autocast(features.device.type, enabled=False):  # d is a small difference of large numbers
            logits = self.scale * features @ positive.t()
            return logits, clean_log_odds(routed, positive, negative, self.scale)

    @property
    def named_by(self) -> Tensor:
        """The unit vectors of the logits. Shape (C, embed_dim)."""
        return F.normalize(self.positive, dim=-1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Classify images: as `classify` does their features."""
        return self.classify(self.features(images))


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
        ends, starts = dict(result.encoder.named_parameters()), dict(start.encoder.named_parameters())
        for name, value in ends.items():
            value.lerp_(starts[name].to(value.dtype), 1 - weight)
        for name in heads:
            a, b = (F.normalize(getattr(c, name).detach(), dim=-1) for c in (start, end))
            getattr(result, name).copy_(a.lerp(b, weight))
    return result
