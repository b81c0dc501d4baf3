"""Detection of class names that may be wrong, without labels.

There are three signals. All use the frozen CLIP, since the trained model would agree with its own mistakes.

- **believed**: zero-shot CLIP's probability of the class, averaged over its images;
- **name fit**: how much nearer the class's own name is to the mean of its images than the nearest other name;
- **kinds**: the size of the class in mean class sizes, increased where that probability varies by groups of images.

`python -m scripts.name_signals` measures how often they are right, on names that it corrupts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from coft.labelling.neighbours import nearest

NEIGHBOURS = 5
MIN_IMAGES = 8  # minimum of images in the sample for all signals of a class
BELIEVED = 0.25  # a name is suspicious below this probability
FIT = 0.0  # a name is suspicious below this name fit
KINDS = 2.0  # a class may be two kinds from this value of `kinds`
RARE = 0.1  # a class has almost no images below this share of the mean class size N / C


@dataclass(frozen=True)
class Signals:
    """Signals of a class.

    Attributes:
        images: Number of its images in the sample. With fewer than `MIN_IMAGES`, only `believed` is measured, too.
        in_run: Number of its images in the run.
        alike: Share of its images' nearest neighbours that have the same class: high if the images form one group.
        fit: Name fit, a difference of cosines. Below 0, `rival` fits better.
        rival: Label of the nearest other name.
        believed: Zero-shot CLIP's probability of the class, averaged over its images; NaN without any.
        kinds: Number of its images divided by the mean over classes, times 1 plus Moran's I of that probability, which
            measures how far nearest neighbours in the class share a deviation from the mean.
    """

    images: int
    in_run: int
    alike: float = np.nan
    fit: float = np.nan
    rival: int = -1
    believed: float = np.nan
    kinds: float = np.nan


@dataclass(frozen=True)
class Suspect:
    """Class whose name may be wrong.

    Attributes:
        label: Label of the class.
        reasons: Reasons: keys of `REASONS`.
        signals: Signals of the class.
    """

    label: int
    reasons: tuple[str, ...]
    signals: Signals


TWO_KINDS = "may be two kinds"
REASONS = {
    "no image is of it": lambda signals: not signals.in_run,
    "CLIP doubts the name": lambda signals: signals.believed < BELIEVED,
    "another name fits better": lambda signals: signals.fit < FIT,
    TWO_KINDS: lambda signals: signals.kinds >= KINDS,
}


def measure(
    features: Tensor, text: np.ndarray, final: np.ndarray, believed: np.ndarray, counts: Sequence[int] | None = None
) -> list[Signals]:
    """Measure the signals of each class on a sample of the images.

    Args:
        features: Centred image features of unit length. Shape (n, k).
        text: Text features of the class names. Shape (C, k).
        final: Label of each image at the end of the run; -1 if unknown. Shape (n,).
        believed: The frozen CLIP's probability of that label. Shape (n,).
        counts: Number of images of each class in the run; None if the sample has all of them.
    """
    count = len(text)
    in_run = np.bincount(final[final >= 0], minlength=count).tolist() if counts is None else counts
    neighbours = nearest(features, features, min(NEIGHBOURS, max(0, len(features) - 1)), torch.arange(len(features)))[1]
    same_class = final[neighbours.numpy()] == final[:, None]
    fit, rival = name_fit(features.numpy(), text, final)
    all_signals = []
    for label in range(count):
        members = np.flatnonzero(final == label)
        doubt = float(believed[members].mean()) if len(members) else np.nan
        if len(members) < MIN_IMAGES:
            all_signals.append(Signals(len(members), in_run[label], believed=doubt))
            continue
        similarity = float(same_class[members].mean()), float(fit[label]), int(rival[label])
        size = len(members) * count / (final >= 0).sum()
        kinds = float(size * (1 + morans_i(believed, members, neighbours.numpy()[members], same_class[members])))
        all_signals.append(Signals(len(members), in_run[label], *similarity, doubt, kinds))
    return all_signals


def morans_i(values: np.ndarray, members: np.ndarray, neighbours: np.ndarray, counted: np.ndarray) -> float:
    """Compute Moran's I (Biometrika 37, 1950): 0 if the values of neighbours are unrelated, 1 if they are equal.

    Args:
        values: Values of all images. Shape (n,).
        members: Indices of the images to compute it for. Shape (m,).
        neighbours: Indices of their neighbours. Shape (m, k).
        counted: Mask of the neighbours that are members, too. Shape (m, k).

    Returns:
        Moran's I; 0 if no neighbour is a member or all values are equal.
    """
    deviation = values - values[members].mean()
    variance = np.square(deviation[members]).mean()
    if not counted.any() or np.ptp(values[members]) == 0:
        return 0.0
    products = deviation[members][:, None] * deviation[neighbours]
    return float(products[counted].mean() / variance)


def believed_of(features: Tensor, text: np.ndarray, scale: float, labels: np.ndarray) -> np.ndarray:
    """Compute zero-shot CLIP's uncorrected probability of one label per image. Shape (n,).

    Args:
        features: Image features, not centred. Shape (n, k).
        text: Text features of the class names. Shape (C, k).
        scale: CLIP's logit scale.
        labels: Label of each image; a negative one gives NaN. Shape (n,).
    """
    logits = scale * features.float() @ torch.tensor(text, dtype=torch.float32).t()
    label = torch.tensor(labels)
    chosen = logits.softmax(dim=1).gather(1, label.clamp(min=0).unsqueeze(1)).squeeze(1)
    return chosen.masked_fill(label < 0, torch.nan).numpy()


def name_fit(features: np.ndarray, text: np.ndarray, final: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measure how well each class's name fits the mean of its images.

    Means and names are centred over the classes first, since a component that all classes share tells none apart.

    Args:
        features: Image features. Shape (n, k).
        text: Text features of the class names. Shape (C, k).
        final: Label of each image at the end of the run; -1 if unknown. Shape (n,).

    Returns:
        Cosine with the class's own name minus the cosine with the nearest other name, and the label of that other name.
        Shape (C,) each. NaN and -1 for a class without images, and for all if fewer than two classes have images.
    """
    count = len(text)
    means = np.full((count, features.shape[1]), np.nan)
    for label in set(final[final >= 0].tolist()):
        means[label] = features[final == label].mean(axis=0)
    fit, rival = np.full(count, np.nan), np.full(count, -1)
    present = np.flatnonzero(~np.isnan(means[:, 0]))
    if count < 2 or len(present) < 2:
        return fit, rival
    cosine = _unit(means[present] - means[present].mean(axis=0)) @ _unit(text - text.mean(axis=0)).T
    own_cosine = cosine[np.arange(len(present)), present].copy()
    cosine[np.arange(len(present)), present] = -np.inf
    rival[present] = cosine.argmax(axis=1)
    fit[present] = own_cosine - cosine.max(axis=1)
    return fit, rival


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)


def suspects(signals: Sequence[Signals]) -> list[Suspect]:
    """Return the classes whose name may be wrong: more reasons first, then a lower name fit (NaN counts as -1)."""
    suspicious = []
    for label, class_signals in enumerate(signals):
        reasons = tuple(reason for reason, holds in REASONS.items() if holds(class_signals))  # a NaN gives no reason
        if reasons:
            suspicious.append(Suspect(label, reasons, class_signals))
    return sorted(suspicious, key=lambda suspect: (-len(suspect.reasons), np.nan_to_num(suspect.signals.fit, nan=-1)))


def few(signals: Sequence[Signals]) -> list[int]:
    """Return the labels of classes that have images, but too few for all signals."""
    return [label for label, of_class in enumerate(signals) if of_class.in_run and of_class.images < MIN_IMAGES]


def rare(counts: np.ndarray) -> list[int]:
    """Return the labels of classes that have almost no images, or none.

    Args:
        counts: Number of images of each class. Shape (C,).
    """
    return [int(label) for label in np.flatnonzero(counts < RARE * counts.sum() / max(1, len(counts)))]
