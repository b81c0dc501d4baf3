"""Momentum contrastive learning of CoFT+: a projection head, a queue of keys, and masks made of pseudo-labels.

After MoCo (He et al. 2020) and SupCon (Khosla et al. 2020). The momentum encoder is the peer's moving average, which
labels images too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.backbones.prompts import DualPrompts
from coft.method.peer import Classifier, Peer
from coft.method.pseudo_labels import Lesson

NO_IMAGE = -1


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
    """The last keys of the momentum encoder, with the ranks of their images.

    Args:
        size: Number of keys that are kept.
        dim: Length of a key.
    """

    keys: Tensor
    ranks: Tensor
    place: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(size, dim))
        self.register_buffer("ranks", torch.full((size,), NO_IMAGE))
        self.register_buffer("place", torch.tensor(0))

    @torch.no_grad()
    def push(self, keys: Tensor, ranks: Tensor) -> None:
        """Put keys (n, dim) with their images' ranks (n,) in the place of the oldest ones."""
        size = len(self.ranks)
        keys, ranks = keys[-size:], ranks[-size:]
        index = (self.place + torch.arange(len(ranks), device=self.ranks.device)) % size
        self.keys[index] = keys.to(self.keys)
        self.ranks[index] = ranks.to(self.ranks)
        self.place.copy_((self.place + len(ranks)) % size)

    def filled(self) -> tuple[Tensor, Tensor]:
        """Keys and ranks of the places that have been filled."""
        there = self.ranks != NO_IMAGE
        return self.keys[there], self.ranks[there]


def contrast_masks(ranks: Tensor, queued: Tensor, lesson: Lesson) -> tuple[Tensor, Tensor]:
    """Which keys of the queue are positives of an anchor and which are negatives; the others count for nothing.

    Positive are other images with the same pseudo-label, if it counts as clean for both. Negative are images with
    another pseudo-label, clean or not: one with the same label might be of the same class.

    Args:
        ranks: Images of the anchors. Shape (n,).
        queued: Images of the keys. Shape (q,).
        lesson: Pseudo-labels of all images, and which count as clean.

    Returns:
        Two masks of shape (n, q).
    """
    same_label = lesson.labels[ranks].unsqueeze(1) == lesson.labels[queued]
    clean = lesson.keep[ranks].unsqueeze(1) & lesson.keep[queued]
    return same_label & clean & (ranks.unsqueeze(1) != queued), ~same_label


def contrastive_loss(
    anchors: Tensor, own: Tensor, keys: Tensor, positives: Tensor, negatives: Tensor, temperature: float
) -> Tensor:
    """Supervised contrastive loss with the image's own momentum key as a positive that is always there.

    For each anchor the mean over its positives p of -log(exp(z p / T) / sum over positives and negatives k of
    exp(z k / T)); without other positives that is InfoNCE.

    Args:
        anchors: z, unit length. Shape (n, dim).
        own: Keys of the same images. Shape (n, dim).
        keys: Keys of the queue. Shape (q, dim), q may be 0.
        positives: Shape (n, q), bool.
        negatives: Shape (n, q), bool.
        temperature: T.

    Returns:
        A scalar.
    """
    to_own = (anchors * own).sum(dim=-1, keepdim=True) / temperature
    to_keys = anchors @ keys.t() / temperature
    everything = torch.cat([to_own, to_keys.masked_fill(~(positives | negatives), float("-inf"))], dim=1)
    total = to_own.squeeze(1) + (to_keys * positives).sum(dim=1)
    return (everything.logsumexp(dim=1) - total / (1 + positives.sum(dim=1))).mean()


class ContrastingClassifier(Classifier):
    """A classifier whose features are also projected, to be contrasted."""

    projection: ProjectionHead

    def project(self, features: Tensor) -> Tensor:
        """Image features (n, embed_dim) to unit-length vectors (n, dim), in fp32."""
        with torch.autocast(features.device.type, enabled=False):
            return cast(Tensor, self.projection(features.float()))


class ContrastingPeer(Peer):
    """A peer that has a projection head and a queue in Phase II.

    Args:
        clip_model: As of `Peer`.
        prompts: As of `Peer`.
        encoder: As of `Peer`.
        identity: As of `Peer`.
        queue_size: Number of keys.
        dim: Length of a key.
        seed: Of the projection head's start.
        **options: As of `Peer`.
    """

    queue: KeyQueue | None

    def __init__(
        self,
        clip_model: Any,
        prompts: DualPrompts,
        encoder: nn.Module,
        identity: Mapping[str, str],
        *,
        queue_size: int,
        dim: int,
        seed: int,
        **options: Any,
    ) -> None:
        super().__init__(clip_model, prompts, encoder, identity, **options)
        self.queue_size, self.dim, self.seed = queue_size, dim, seed
        self.queue = None

    def make_student(self) -> ContrastingClassifier:
        """The classifier that trains in Phase II, with a projection head; also makes the queue."""
        plain = super().make_student()
        args = (plain.encoder, plain.positive, plain.negative, plain.scale, plain.negative_to_visual)
        student = ContrastingClassifier(*args, plain.micro_batch)
        source = torch.Generator().manual_seed(self.seed)
        student.projection = ProjectionHead(plain.positive.shape[1], self.dim, source).to(plain.positive.device)
        self.queue = KeyQueue(self.queue_size, self.dim).to(plain.positive.device)
        return student

    def leave_phase2(self) -> None:
        """Back to Phase I, without a queue."""
        super().leave_phase2()
        self.queue = None

    def contrast(self, features: Tensor, key_views: Tensor, ranks: Tensor, temperature: float) -> Tensor:
        """Contrast features of images with momentum keys of other views of them, and queue the keys.

        Args:
            features: The student's image features. Shape (n, embed_dim).
            key_views: Other views of the same images. Shape (n, 3, size, size).
            ranks: Their ranks. Shape (n,).
            temperature: See `contrastive_loss`.

        Returns:
            A scalar.
        """
        student, teacher, queue = cast(Any, self.student), cast(Any, self.teacher()), cast(KeyQueue, self.queue)
        with torch.no_grad():
            own = teacher.project(teacher.features(key_views))
        keys, queued = queue.filled()
        masks = contrast_masks(ranks.cpu(), queued.cpu(), self.lesson)
        positives, negatives = (mask.to(features.device) for mask in masks)
        loss = contrastive_loss(student.project(features), own, keys, positives, negatives, temperature)
        queue.push(own, ranks)
        return loss
