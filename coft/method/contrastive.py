"""Momentum contrastive learning of CoFT+: a projection head, a queue of keys, and masks from pseudo-labels.

After MoCo (He et al. 2020) and SupCon (Khosla et al. 2020). The momentum encoder is the peer's EMA teacher, which also
labels images.
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
DIM = 128  # dimension of a key
QUEUE = 4096  # maximum number of keys in the queue, which is also at most half the number of images
TEMPERATURE = 0.07  # as in MoCo


class ProjectionHead(nn.Module):
    """Two-layer projection head, from image features to the space of the contrastive loss.

    Args:
        width: Dimension of the image features.
        dim: Dimension of the output.
        generator: Source of the random numbers.
    """

    def __init__(self, width: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = nn.Parameter(torch.randn(width, width, generator=generator) * (2 / width) ** 0.5)
        self.out = nn.Parameter(torch.randn(dim, width, generator=generator) * width**-0.5)

    def forward(self, features: Tensor) -> Tensor:
        """Project features (n, width) to unit-length vectors (n, dim)."""
        return F.normalize(torch.relu(features @ self.hidden.t()) @ self.out.t(), dim=-1)


class KeyQueue(nn.Module):
    """Queue of the latest momentum keys, each with the index of its image.

    Args:
        size: Maximum number of keys.
        dim: Dimension of a key.
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
        """Replace the oldest keys by keys (n, dim) with the indices of their images (n,)."""
        size = len(self.index)
        keys, index = keys[-size:], index[-size:]
        place = (self.place + torch.arange(len(index), device=self.index.device)) % size
        self.keys[place] = keys.to(self.keys)
        self.index[place] = index.to(self.index)
        self.place.copy_((self.place + len(index)) % size)

    def filled(self) -> tuple[Tensor, Tensor]:
        """Return the keys in the queue so far, and the indices of their images."""
        there = self.index != NO_IMAGE
        return self.keys[there], self.index[there]


def contrast_masks(index: Tensor, queued: Tensor, labels: PseudoLabels) -> tuple[Tensor, Tensor]:
    """Compute masks of each anchor's positives and negatives among the queued keys; all other keys are ignored.

    Positives are other images with the same pseudo-label, if it counts as clean for both. Negatives are images with
    another pseudo-label, clean or not. An unclean image with the same label is neither: it might be of the same class.

    Args:
        index: Image indices of the anchors. Shape (n,).
        queued: Image indices of the keys. Shape (q,).
        labels: Pseudo-labels of all images; those in `keep` count as clean.

    Returns:
        Masks of positives and of negatives. Shape (n, q) each.
    """
    same_label = labels.label[index].unsqueeze(1) == labels.label[queued]
    clean = labels.keep[index].unsqueeze(1) & labels.keep[queued]
    return same_label & clean & (index.unsqueeze(1) != queued), ~same_label


def contrastive_loss(
    anchors: Tensor, own_keys: Tensor, keys: Tensor, positives: Tensor, negatives: Tensor, temperature: float
) -> Tensor:
    """Compute the supervised contrastive loss, where the image's own momentum key is always a positive.

    The loss of an anchor is the mean over its positives p of -log(exp(z p / T) / sum over positives and negatives k of
    exp(z k / T)). Without other positives, it is InfoNCE.

    Args:
        anchors: Projected features z of unit length. Shape (n, dim).
        own_keys: Momentum keys of the same images. Shape (n, dim).
        keys: Keys of the queue. Shape (q, dim), where q may be 0.
        positives: Mask of positives in the queue. Shape (n, q), bool.
        negatives: Mask of negatives in the queue. Shape (n, q), bool.
        temperature: Temperature T.

    Returns:
        Loss of each anchor. Shape (n,).
    """
    to_own = (anchors * own_keys).sum(dim=-1, keepdim=True) / temperature
    to_keys = anchors @ keys.t() / temperature
    everything = torch.cat([to_own, to_keys.masked_fill(~(positives | negatives), float("-inf"))], dim=1)
    total = to_own.squeeze(1) + (to_keys * positives).sum(dim=1)
    return everything.logsumexp(dim=1) - total / (1 + positives.sum(dim=1))


class ContrastingClassifier(Classifier):
    """A classifier with a projection head for the contrastive loss.

    Args:
        projection: Projection head.
        *parts: Arguments of `Classifier`.
    """

    def __init__(self, projection: ProjectionHead, *parts: Any) -> None:
        super().__init__(*parts)
        self.projection = projection

    def project(self, features: Tensor) -> Tensor:
        """Project image features (n, embed_dim) to unit-length vectors (n, dim), in fp32."""
        with torch.autocast(features.device.type, enabled=False):
            return cast(Tensor, self.projection(features.float()))


class ContrastingPeer(Peer):
    """A peer with a projection head and a queue of momentum keys in Phase II.

    Args:
        *parts: Positional arguments of `Peer`: prompts, encoder and scale.
        queue_size: Maximum number of keys in the queue.
        seed: Random seed of the projection head's initialisation.
        **options: Keyword arguments of `Peer`.
    """

    queue: KeyQueue | None

    def __init__(self, *parts: Any, queue_size: int, seed: int, **options: Any) -> None:
        super().__init__(*parts, **options)
        self.queue_size, self.seed = queue_size, seed
        self.queue = None

    def full_classifier(self, encoder: nn.Module) -> ContrastingClassifier:
        """Build the classifier of Phase II with a projection head, and create the queue."""
        plain = super().full_classifier(encoder)
        source = torch.Generator().manual_seed(self.seed)
        projection = ProjectionHead(plain.positive.shape[1], DIM, source).to(plain.positive.device)
        self.queue = KeyQueue(self.queue_size, DIM).to(plain.positive.device)
        parts = plain.encoder, plain.positive, plain.negative, plain.scale
        return ContrastingClassifier(projection, *parts)

    def leave_phase2(self) -> None:
        """Return to Phase I, and drop the queue."""
        super().leave_phase2()
        self.queue = None

    @torch.no_grad()
    def keys(self, views: Tensor) -> Tensor:
        """Compute momentum keys of views (n, 3, size, size). Shape (n, dim)."""
        teacher = cast(ContrastingClassifier, self.teacher())
        return teacher.project(teacher.features(views))

    def contrast(self, features: Tensor, own_keys: Tensor, index: Tensor, labels: PseudoLabels) -> Tensor:
        """Compute the contrastive loss of images with momentum keys of their other views and with the queue.

        Args:
            features: The student's image features. Shape (n, embed_dim).
            own_keys: Momentum keys of the same images. Shape (n, dim).
            index: Indices of the images. Shape (n,).
            labels: Pseudo-labels of all images.

        Returns:
            Loss of each image. Shape (n,).
        """
        keys, queued = cast(KeyQueue, self.queue).filled()
        masks = contrast_masks(index.cpu(), queued.cpu(), labels)
        positives, negatives = (mask.to(features.device) for mask in masks)
        anchors = cast(ContrastingClassifier, self.learner()).project(features)
        return contrastive_loss(anchors, own_keys, keys, positives, negatives, TEMPERATURE)
