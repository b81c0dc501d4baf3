"""Momentum contrastive learning of CoFT+: a projection head, a queue of keys, and masks made of pseudo-labels.

After MoCo (He et al. 2020) and SupCon (Khosla et al. 2020). The momentum encoder is the peer's moving average, which
labels images too.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.labelling.classifier import Classifier
from coft.labelling.pseudo_labels import PseudoLabels

from .peer import Peer

NO_IMAGE = -1
DIM = 128  # length of a key
QUEUE = 4096  # keys in the queue, but no more than half of the images
TEMPERATURE = 0.07  # MoCo's


class ProjectionHead(nn.Module):
    """Two layers from image features to the space where they are contrasted.

    Args:
        width: Of the image features.
        dim: Of the result.
        generator: Source of the random numbers.
    """

    def __init__(self, width: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = nn.Parameter(torch.randn(width, width, generator=generator) * (2 / width) ** 0.5)
        self.out = nn.Parameter(torch.randn(dim, width, generator=generator) * width**-0.5)

    def forward(self, features: Tensor) -> Tensor:
        """Features (n, width) to unit-length vectors (n, dim)."""
        return F.normalize(torch.relu(features @ self.hidden.t()) @ self.out.t(), dim=-1)


class KeyQueue(nn.Module):
    """The last keys of the momentum encoder, with the index of their images.

    Args:
        size: Number of keys that are kept.
        dim: Length of a key.
    """

    keys: Tensor
    index: Tensor
    place: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(size, dim))
        self.register_buffer("index", torch.full((size,), NO_IMAGE))
        self.register_buffer("place", torch.tensor(0))

    @torch.no_grad()
    def push(self, keys: Tensor, index: Tensor) -> None:
        """Put keys (n, dim) with their images' index (n,) in the place of the oldest ones."""
        size = len(self.index)
        keys, index = keys[-size:], index[-size:]
        place = (self.place + torch.arange(len(index), device=self.index.device)) % size
        self.keys[place] = keys.to(self.keys)
        self.index[place] = index.to(self.index)
        self.place.copy_((self.place + len(index)) % size)

    def filled(self) -> tuple[Tensor, Tensor]:
        """Keys and index of the places that have been filled."""
        there = self.index != NO_IMAGE
        return self.keys[there], self.index[there]


def contrast_masks(index: Tensor, queued: Tensor, labels: PseudoLabels) -> tuple[Tensor, Tensor]:
    """Which keys of the queue are positives of an anchor and which are negatives; the others count for nothing.

    Positive are other images with the same pseudo-label, if it counts as clean for both. Negative are images with
    another pseudo-label, clean or not: one with the same label might be of the same class.

    Args:
        index: Images of the anchors. Shape (n,).
        queued: Images of the keys. Shape (q,).
        labels: Pseudo-labels of all images, and which count as clean.

    Returns:
        Two masks of shape (n, q).
    """
    same_label = labels.label[index].unsqueeze(1) == labels.label[queued]
    clean = labels.keep[index].unsqueeze(1) & labels.keep[queued]
    return same_label & clean & (index.unsqueeze(1) != queued), ~same_label


def contrastive_loss(
    anchors: Tensor, own_keys: Tensor, keys: Tensor, positives: Tensor, negatives: Tensor, temperature: float
) -> Tensor:
    """Supervised contrastive loss with the image's own momentum key as a positive that is always there.

    For each anchor the mean over its positives p of -log(exp(z p / T) / sum over positives and negatives k of
    exp(z k / T)); without other positives that is InfoNCE.

    Args:
        anchors: z, unit length. Shape (n, dim).
        own_keys: Keys of the same images. Shape (n, dim).
        keys: Keys of the queue. Shape (q, dim), q may be 0.
        positives: Shape (n, q), bool.
        negatives: Shape (n, q), bool.
        temperature: T.

    Returns:
        Of each anchor. Shape (n,).
    """
    to_own = (anchors * own_keys).sum(dim=-1, keepdim=True) / temperature
    to_keys = anchors @ keys.t() / temperature
    everything = torch.cat([to_own, to_keys.masked_fill(~(positives | negatives), float("-inf"))], dim=1)
    total = to_own.squeeze(1) + (to_keys * positives).sum(dim=1)
    return everything.logsumexp(dim=1) - total / (1 + positives.sum(dim=1))


class ContrastingClassifier(Classifier):
    """A classifier whose features are also projected, to be contrasted.

    Args:
        projection: Image features to the space where they are contrasted.
        *parts: Arguments of `Classifier`.
    """

    def __init__(self, projection: ProjectionHead, *parts: Any) -> None:
        super().__init__(*parts)
        self.projection = projection

    def project(self, features: Tensor) -> Tensor:
        """Image features (n, embed_dim) to unit-length vectors (n, dim), in fp32."""
        with torch.autocast(features.device.type, enabled=False):
            return cast(Tensor, self.projection(features.float()))


class ContrastingPeer(Peer):
    """A peer that has a projection head and a queue in Phase II.

    Args:
        *parts: Prompts, encoder and scale of `Peer`.
        queue_size: Number of keys.
        seed: Of the projection head's start.
        **options: Settings of `Peer`.
    """

    queue: KeyQueue | None

    def __init__(self, *parts: Any, queue_size: int, seed: int, **options: Any) -> None:
        super().__init__(*parts, **options)
        self.queue_size, self.seed = queue_size, seed
        self.queue = None

    def full_classifier(self, encoder: nn.Module) -> ContrastingClassifier:
        """The classifier that trains in Phase II, with a projection head; also makes the queue."""
        plain = super().full_classifier(encoder)
        source = torch.Generator().manual_seed(self.seed)
        projection = ProjectionHead(plain.positive.shape[1], DIM, source).to(plain.positive.device)
        self.queue = KeyQueue(self.queue_size, DIM).to(plain.positive.device)
        parts = plain.encoder, plain.positive, plain.negative, plain.scale, plain.negative_to_visual
        return ContrastingClassifier(projection, *parts)

    def leave_phase2(self) -> None:
        """Back to Phase I, without a queue."""
        super().leave_phase2()
        self.queue = None

    @torch.no_grad()
    def keys(self, views: Tensor) -> Tensor:
        """Momentum keys of views (n, 3, size, size). Shape (n, dim)."""
        teacher = cast(ContrastingClassifier, self.teacher())
        return teacher.project(teacher.features(views))

    def contrast(self, features: Tensor, own_keys: Tensor, index: Tensor, labels: PseudoLabels) -> Tensor:
        """Contrast features of images with momentum keys of other views of them, and with those of the queue.

        Args:
            features: The student's image features. Shape (n, embed_dim).
            own_keys: Momentum keys of the same images. Shape (n, dim).
            index: Which images. Shape (n,).
            labels: Of all images.

        Returns:
            Losses of the images. Shape (n,).
        """
        keys, queued = cast(KeyQueue, self.queue).filled()
        masks = contrast_masks(index.cpu(), queued.cpu(), labels)
        positives, negatives = (mask.to(features.device) for mask in masks)
        anchors = cast(ContrastingClassifier, self.learner()).project(features)
        return contrastive_loss(anchors, own_keys, keys, positives, negatives, TEMPERATURE)
