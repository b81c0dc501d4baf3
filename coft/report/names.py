"""Classes that may go by a wrong name, found without a label.

There are three signals. All use the frozen CLIP: the trained model would agree with its own mistakes.

- **believed**: the probability that zero-shot CLIP gives to the class's name, on the mean over its images;
- **name fit**: how much nearer the class's own name is to the mean of its images than the nearest other name;
- **kinds**: how many images it has, more where what CLIP believes of them comes in groups.

`python -m scripts.name_signals` measures how often they are right, with names that it makes wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from coft.labelling.neighbours import nearest

NEIGHBOURS = 5
AT_LEAST = 8  # classes with fewer images in the sample are not measured
BELIEVED = 0.25  # a name is suspicious below this probability
FIT = 0.0  # and below this name fit
KINDS = 2.0  # a class may be two kinds from this number of mean classes
RARE = 0.1  # a class has almost no image below this share of N / C images


@dataclass(frozen=True)
class Signals:
    """The signals of a class.

    Attributes:
        images: Number of its images in the sample. With fewer than `AT_LEAST` nothing else is measured but `believed`.
        alike: Share of its images' nearest neighbours that have the same class. It says whether the images are a group.
        fit: Name fit, a difference of cosines. Below 0, `rival` fits better.
        rival: Label of the nearest other name.
        believed: Probability of the class to zero-shot CLIP, mean over its images; NaN where that is not known.
        kinds: Number of its images, by the mean over classes, times 1 plus Moran's I of that probability: how far an
            image's nearest neighbours in the class share its deviation from the mean. NaN where it is not known.
    """

    images: int
    alike: float = np.nan
    fit: float = np.nan
    rival: int = -1
    believed: float = np.nan
    kinds: float = np.nan


@dataclass(frozen=True)
class Suspect:
    """A class that may go by a wrong name.

    Attributes:
        label: Label of the class.
        reasons: Keys of `REASONS`.
        signals: What was measured.
    """

    label: int
    reasons: tuple[str, ...]
    signals: Signals


REASONS = {
    "no image is of it": lambda signals: not signals.images,
    "CLIP doubts the name": lambda signals: signals.believed < BELIEVED,
    "another name fits better": lambda signals: signals.fit < FIT,
    "may be two kinds": lambda signals: signals.kinds >= KINDS,
}


def measure(features: Tensor, text: np.ndarray, final: np.ndarray, believed: np.ndarray | None = None) -> list[Signals]:
    """Measure the signals of each class.

    Args:
        features: Centred image features of unit length. Shape (n, k).
        text: Text features of the class names. Shape (C, k).
        final: Label of each image at the end of the run; -1 is unknown. Shape (n,).
        believed: Probability of its label at the end, by the frozen CLIP. Shape (n,).
    """
    believed = np.full(len(final), np.nan) if believed is None else believed
    count = len(text)
    neighbours = nearest(features, features, min(NEIGHBOURS, max(0, len(features) - 1)), torch.arange(len(features)))[1]
    same_class = final[neighbours.numpy()] == final[:, None]
    fit, rival = name_fit(features.numpy(), text, final)
    all_signals = []
    for label in range(count):
        members = np.flatnonzero(final == label)
        doubt = float(believed[members].mean()) if len(members) else np.nan
        if len(members) < AT_LEAST:
            all_signals.append(Signals(len(members), believed=doubt))
            continue
        similarity = float(same_class[members].mean()), float(fit[label]), int(rival[label])
        size = len(members) * count / (final >= 0).sum()
        kinds = float(size * (1 + morans_i(believed, members, neighbours.numpy()[members], same_class[members])))
        all_signals.append(Signals(len(members), *similarity, doubt, kinds))
    return all_signals


def morans_i(values: np.ndarray, members: np.ndarray, neighbours: np.ndarray, counted: np.ndarray) -> float:
    """Moran's I (Biometrika 37, 1950) of some images: 0 where neighbours' values are unrelated, 1 where they are equal.

    Args:
        values: Of all images. Shape (n,).
        members: Indices of the images. Shape (m,).
        neighbours: Indices of their neighbours. Shape (m, k).
        counted: Which neighbours count: those among the images. Shape (m, k).

    Returns:
        NaN where a value is; 0 where no neighbour counts, or all values are equal.
    """
    deviation = values - values[members].mean()
    variance = np.square(deviation[members]).mean()
    if not counted.any() or np.ptp(values[members]) == 0:
        return 0.0
    products = deviation[members][:, None] * deviation[neighbours]
    return float(products[counted].mean() / variance)


def believed_of(features: Tensor, text: np.ndarray, scale: float, labels: np.ndarray) -> np.ndarray:
    """Probability of one label an image, by zero-shot CLIP without a correction. Shape (n,).

    Args:
        features: Image features as they are. Shape (n, k).
        text: Text features of the class names. Shape (C, k).
        scale: CLIP's logit scale.
        labels: Shape (n,); NaN is returned for a negative one.
    """
    logits = scale * features.float() @ torch.tensor(text, dtype=torch.float32).t()
    label = torch.tensor(labels)
    chosen = logits.softmax(dim=1).gather(1, label.clamp(min=0).unsqueeze(1)).squeeze(1)
    return chosen.masked_fill(label < 0, torch.nan).numpy()


def name_fit(features: np.ndarray, text: np.ndarray, final: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How well the mean of each class's images fits the name of the class.

    Means and names are centred over the classes first: what all classes share tells none of them apart.

    Args:
        features: Image features. Shape (n, k).
        text: Text features of the class names. Shape (C, k).
        final: Label of each image at the end of the run; -1 is unknown. Shape (n,).

    Returns:
        The cosine with the own name minus the cosine with the nearest other name, and the label of that other name.
        Shape (C,) each. NaN and -1 for a class without images, and where there is only one class.
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
    """The classes that may go by a wrong name. More reasons come first, then a worse name fit, or none."""
    suspicious = []
    for label, class_signals in enumerate(signals):
        reasons = tuple(reason for reason, holds in REASONS.items() if holds(class_signals))  # none holds for NaN
        if reasons:
            suspicious.append(Suspect(label, reasons, class_signals))
    return sorted(suspicious, key=lambda suspect: (-len(suspect.reasons), np.nan_to_num(suspect.signals.fit, nan=-1)))


def few(signals: Sequence[Signals]) -> list[int]:
    """Labels of classes that have images, but too few for all signals."""
    return [label for label, of_class in enumerate(signals) if 0 < of_class.images < AT_LEAST]


def rare(counts: np.ndarray) -> list[int]:
    """Labels of classes that have almost no images.

    Args:
        counts: Number of images of each class. Shape (C,).
    """
    return [int(label) for label in np.flatnonzero(counts < RARE * counts.sum() / max(1, len(counts)))]
