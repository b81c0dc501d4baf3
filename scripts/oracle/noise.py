"""An experiment on CoFT: Phase II is given labels, some of which are wrong in a known way.

It tells whether p_clean finds wrong labels by how they are wrong, for as many of each kind. Not a method: it reads the
labels of the training images.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.core.seeding import generator

NOISES = ("none", "uniform", "confusable", "cluster", "swapped")


def noisy_labels(truth: Tensor, noise: str, features: Tensor, text: Tensor, seed: int) -> Tensor:
    """True labels, but for 2 of C that are wrong.

    uniform: of each class images at random, with any other class. confusable: the same images, with the class whose
    name is most like theirs. cluster: that class, but for images of a class that are alike, the nearest ones to one of
    them. swapped: all images of two classes, with each other's name.

    Args:
        truth: Label of each image. Shape (N,).
        noise: One of `NOISES`.
        features: Of the images. Shape (N, embed_dim).
        text: Of the classes. Shape (C, embed_dim).
        seed: Of what is drawn.

    Returns:
        Shape (N,).
    """
    classes, source = len(text), generator(seed, "noise")
    images, like = F.normalize(features.float(), dim=1), _most_alike(truth, features, text)
    if noise == "swapped":
        first = int(like.values.argmax())
        second = int(like.indices[first])
        swap = torch.arange(classes)
        swap[[first, second]] = torch.tensor([second, first])
        return swap[truth]
    label = truth.clone()
    for c in range(classes):
        members = torch.nonzero(truth == c).flatten()
        drawn = members[torch.randperm(len(members), generator=source)]
        if noise == "cluster":
            nearest = (images[members] @ images[drawn[:1]].t()).sum(dim=1).argsort(descending=True, stable=True)
            drawn = members[nearest]
        wrong = drawn[: round(2 / classes * len(members))]
        others = (c + torch.randint(1, classes, (len(wrong),), generator=source)) % classes
        label[wrong] = others if noise == "uniform" else like.indices[c]
    return label


def _most_alike(truth: Tensor, features: Tensor, text: Tensor) -> Any:
    """Of each class, the other one whose text the images of the class are most like, and how much. Shape (C,) each."""
    counts = torch.bincount(truth, minlength=len(text)).clamp_min(1)
    sums = torch.zeros(len(text), features.shape[1]).index_add_(0, truth, features.float())
    alike = (sums / counts[:, None]) @ text.float().t()
    alike = alike - alike.mean(dim=0)  # a text that all images are like tells nothing of a class
    return alike.fill_diagonal_(-torch.inf).max(dim=1)
