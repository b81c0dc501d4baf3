"""Groups of images that may go by a wrong name, told without a label.

Three signals for each class, of the frozen CLIP's features alone, so that what training has made of them cannot hide
behind itself:

- **name fit**: how much nearer the class's own name is to the mean of its images than the nearest other name;
- **taken**: the share of its images that zero-shot CLIP gave to one other class;
- **two groups**: whether its images fall into two halves that are hardly ever neighbours of each other.

They count where the images of a class are alike at all (**alike**: the share of an image's nearest neighbours that are
of its class).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from coft.method.neighbours import nearest

NEIGHBOURS = 5
AT_LEAST = 8  # images of a class in the sample, below which nothing is said of it
ALIKE = 0.5  # share of neighbours of the same class, from which images make a group
TAKEN = 0.5  # share of another class's images
APART = 0.95  # share of an image's neighbours in its class that are in its own half
SMALL_HALF = 0.2  # of the images of a class, which the smaller half has at least
RARE = 0.1  # of N / C images, below which a class has almost none
SPLITS = 20  # steps of the search for two halves, at most


@dataclass(frozen=True)
class Signals:
    """What is measured of a class.

    Attributes:
        images: In the sample.
        alike: See above; NaN where there are fewer than `AT_LEAST` images, and so the others.
        fit: Name fit, a difference of cosines; below 0, `rival` fits better.
        rival: Label of the nearest other name.
        taken: See above.
        source: Label of the class that zero-shot CLIP gave most of the other images to; -1 without any.
        apart: Share of an image's neighbours in its class that are in its own half.
        halves: Places of the images in the sample, of the larger half and the smaller one.
    """

    images: int
    alike: float = np.nan
    fit: float = np.nan
    rival: int = -1
    taken: float = 0.0
    source: int = -1
    apart: float = np.nan
    halves: tuple[np.ndarray, np.ndarray] = (np.empty(0, int), np.empty(0, int))


@dataclass(frozen=True)
class Suspect:
    """A class that may go by a wrong name.

    Attributes:
        label: Of the class.
        reasons: Each a name of `REASONS`.
        signals: What is measured of it.
        score: The larger, the earlier it is shown.
    """

    label: int
    reasons: tuple[str, ...]
    signals: Signals
    score: float


def measure(features: Tensor, text: np.ndarray, final: np.ndarray, zero_shot: np.ndarray) -> list[Signals]:
    """Measure the signals of each class.

    Args:
        features: Centred, of unit length. Shape (n, k).
        text: Features of the names. Shape (C, k).
        final: Class of each image in the end; -1 is unknown. Shape (n,).
        zero_shot: By the frozen CLIP. Shape (n,).
    """
    count = len(text)
    near = _neighbours(features)
    same = (final[near] == final[:, None]).mean(axis=1) if near.shape[1] else np.zeros(len(final))
    fit, rival = name_fit(features.numpy(), text, final)
    found = []
    for label in range(count):
        mine = np.flatnonzero(final == label)
        if len(mine) < AT_LEAST:
            found.append(Signals(len(mine)))
            continue
        before = np.bincount(zero_shot[mine], minlength=count)
        before[label] = 0
        source = int(before.argmax())
        apart, halves = two_halves(features[torch.from_numpy(mine)])
        found.append(
            Signals(
                len(mine),
                float(same[mine].mean()),
                float(fit[label]),
                int(rival[label]),
                before[source] / len(mine),
                source if before[source] else -1,
                apart,
                (mine[halves[0]], mine[halves[1]]),
            )
        )
    return found


def _neighbours(features: Tensor) -> np.ndarray:
    count = min(NEIGHBOURS, max(0, len(features) - 1))
    return nearest(features, features, count, torch.arange(len(features)))[1].numpy()


def name_fit(features: np.ndarray, text: np.ndarray, final: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How well the mean of each class's images fits its own name.

    Images and names are each seen from the mean of their kind, over classes: what all have in common tells none apart.

    Args:
        features: Shape (n, k).
        text: Shape (C, k).
        final: Shape (n,).

    Returns:
        Cosine with the own name less that with the nearest other one, and that one's label; NaN and -1 for a class
        without an image, or where there is one class. Shape (C,) each.
    """
    count = len(text)
    means = np.full((count, features.shape[1]), np.nan)
    for label in set(final[final >= 0].tolist()):
        means[label] = features[final == label].mean(axis=0)
    fit, rival = np.full(count, np.nan), np.full(count, -1)
    known = np.flatnonzero(~np.isnan(means[:, 0]))
    if count < 2 or len(known) < 2:
        return fit, rival
    cosine = _unit(means[known] - means[known].mean(axis=0)) @ _unit(text - text.mean(axis=0)).T
    own = cosine[np.arange(len(known)), known].copy()
    cosine[np.arange(len(known)), known] = -np.inf
    rival[known] = cosine.argmax(axis=1)
    fit[known] = own - cosine.max(axis=1)
    return fit, rival


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)


def two_halves(features: Tensor) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
    """Part images in two by 2-means, and see how seldom the halves are neighbours.

    Args:
        features: Of unit length. Shape (n, k), n at least 2.

    Returns:
        The mean share of an image's neighbours that are in its own half, of the smaller half (a large one has its
        neighbours in itself in any case); and places of the images of the larger and of the smaller half.
    """
    rows = features - features.mean(dim=0)
    direction = torch.linalg.svd(rows, full_matrices=False).Vh[0]
    second = (rows @ direction) > 0
    for _ in range(SPLITS):
        if second.all() or not second.any():
            break
        centres = torch.stack([rows[~second].mean(dim=0), rows[second].mean(dim=0)])
        moved = torch.cdist(rows, centres).argmin(dim=1) == 1
        if torch.equal(moved, second):
            break
        second = moved
    small = second if int(second.sum()) * 2 <= len(second) else ~second
    halves = np.flatnonzero(~small.numpy()), np.flatnonzero(small.numpy())
    if not len(halves[1]):
        return 0.0, halves
    near = _neighbours(features)
    return float((small.numpy()[near[halves[1]]]).mean()), halves


REASONS = {
    "another name fits better": lambda own: own.fit < 0,
    "took another class's images": lambda own: own.taken >= TAKEN,
    "two groups under one name": lambda own: own.apart >= APART and len(own.halves[1]) >= SMALL_HALF * own.images,
}


def suspects(signals: Sequence[Signals]) -> list[Suspect]:
    """The classes that may go by a wrong name, those with the most reasons first."""
    found = []
    for label, own in enumerate(signals):
        reasons = tuple(reason for reason, holds in REASONS.items() if own.alike >= ALIKE and holds(own))
        if reasons:
            found.append(Suspect(label, reasons, own, len(reasons) + own.taken - float(np.nan_to_num(own.fit))))
    return sorted(found, key=lambda suspect: -suspect.score)


def rare(counts: np.ndarray) -> list[int]:
    """Labels of classes that have almost no image, of the images of each class in the end, shape (C,)."""
    return [int(label) for label in np.flatnonzero(counts < RARE * counts.sum() / max(1, len(counts)))]
