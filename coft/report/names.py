"""Classes that may go by a wrong name, found without a label.

Two signals, of the frozen CLIP, so that what training has made of the images cannot hide behind itself:

- **name fit**: how much nearer the class's own name is to the mean of its images than the nearest other name;
- **taken**: the share of its images that zero-shot CLIP gave to one other class.

`python -m scripts.name_signals` measures how often they are right. That images of a class fall into two groups was
tried as a third one, by a scratch script: no class that it named was wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from coft.labelling.neighbours import nearest

NEIGHBOURS = 5
AT_LEAST = 8  # images of a class in the sample, below which nothing is said of it
FIT = 0.05  # name fit below which a name is suspicious
TAKEN = 0.5  # share of another class's images, from which it is
RARE = 0.1  # of N / C images, below which a class has almost none


@dataclass(frozen=True)
class Signals:
    """What is measured of a class.

    Attributes:
        images: In the sample.
        alike: Share of its images' nearest neighbours that are of the same class. Says whether the images make a group.
            NaN where there are fewer than `AT_LEAST` images, and so the others.
        fit: Name fit, a difference of cosines; below 0, `rival` fits better.
        rival: Label of the nearest other name.
        taken: See above.
        source: Label of the class that zero-shot CLIP gave most of the other images to; -1 without any.
    """

    images: int
    alike: float = np.nan
    fit: float = np.nan
    rival: int = -1
    taken: float = 0.0
    source: int = -1


@dataclass(frozen=True)
class Suspect:
    """A class that may go by a wrong name.

    Attributes:
        label: Of the class.
        reasons: Each a name of `REASONS`.
        signals: What is measured of it.
    """

    label: int
    reasons: tuple[str, ...]
    signals: Signals


REASONS = {
    "another name fits as well": lambda own: own.fit < FIT,
    "took another class's images": lambda own: own.taken >= TAKEN,
}


def measure(features: Tensor, text: np.ndarray, final: np.ndarray, zero_shot: np.ndarray) -> list[Signals]:
    """Measure the signals of each class.

    Args:
        features: Centred, of unit length. Shape (n, k).
        text: Features of the names. Shape (C, k).
        final: Class of each image in the end; -1 is unknown. Shape (n,).
        zero_shot: By the frozen CLIP. Shape (n,).
    """
    count = len(text)
    near = nearest(features, features, min(NEIGHBOURS, max(0, len(features) - 1)), torch.arange(len(features)))[1]
    same = (final[near.numpy()] == final[:, None]).mean(axis=1) if near.shape[1] else np.zeros(len(final))
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
        taken = float(before[source] / len(mine))
        numbers = float(same[mine].mean()), float(fit[label]), int(rival[label])
        found.append(Signals(len(mine), *numbers, taken, source if taken else -1))
    return found


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


def suspects(signals: Sequence[Signals]) -> list[Suspect]:
    """The classes that may go by a wrong name: those with more reasons first, then those whose name fits worse."""
    found = []
    for label, own in enumerate(signals):
        reasons = tuple(reason for reason, holds in REASONS.items() if holds(own))  # not a number: none holds
        if reasons:
            found.append(Suspect(label, reasons, own))
    return sorted(found, key=lambda suspect: (-len(suspect.reasons), suspect.signals.fit))


def rare(counts: np.ndarray) -> list[int]:
    """Labels of classes that have almost no image, of the images of each class in the end, shape (C,)."""
    return [int(label) for label in np.flatnonzero(counts < RARE * counts.sum() / max(1, len(counts)))]
