"""Paired bootstrap over seeds and test images: how far a difference could be from what other draws would give."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
LEVEL = 0.95
Right = NDArray[np.bool_]  # (seeds, images): whether a method is right
Units = Sequence[tuple[Right, ...]]  # of one data set


def resampled(datasets: Sequence[Units], draws: int = DRAWS, seed: int = 0) -> NDArray[np.float64]:
    """Error rates of methods under the bootstrap.

    In each draw the data sets are drawn with replacement where there are several, then each one's images, then seeds of
    each of its units. All methods get the same. Units of one data set are drawn together, for they are alike: they
    share images and classes. n seeds spread by sqrt(n / (n - 1)) too little, which is made up for; a single one shows
    nothing of how far another would be.

    Args:
        datasets: For each, its units, a checkpoint each: what each method has right. Methods of a unit share seeds and
            images. A method with one seed is the same under all.
        draws: How many.
        seed: Of the draws.

    Returns:
        Mean error rate over units. Shape (draws, methods).
    """
    sums = np.stack([_drawn(units, draws, (seed, place)) for place, units in enumerate(datasets)], axis=1)
    sizes = np.array([len(units) for units in datasets])
    which = np.random.default_rng(seed).integers(len(datasets), size=(draws, len(datasets)))
    summed: NDArray[np.float64] = sums[np.arange(draws)[:, None], which].sum(axis=1)
    return summed / sizes[which].sum(axis=1, keepdims=True)


def _drawn(units: Units, draws: int, key: tuple[int, int]) -> NDArray[np.float64]:
    """Error rates, summed over units. Shape (draws, methods)."""
    source, result = np.random.default_rng(key), np.zeros((draws, len(units[0])))
    for unit in units:
        images, seeds = unit[0].shape[1], max(len(right) for right in unit)
        chosen = source.integers(seeds, size=(draws, seeds))
        for place, right in enumerate(unit):
            wrong = 1 - _counts(images, draws, key) @ right.T.astype(np.float32) / images  # (draws, own seeds)
            result[:, place] += _spread(wrong, np.take_along_axis(wrong, chosen % len(right), axis=1))
    return result


@lru_cache(maxsize=32)
def _counts(images: int, draws: int, key: tuple[int, int]) -> NDArray[np.float32]:
    """How often each image is drawn. Shape (draws, images)."""
    source = np.random.default_rng((*key, images))
    rows = (np.bincount(source.integers(images, size=images), minlength=images) for _ in range(draws))
    return np.stack([row.astype(np.float32) for row in rows])


def _spread(all_seeds: NDArray[np.float64], drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of those drawn, as far from that of all as it is without the bias of few seeds; at least 0."""
    seeds, mean = all_seeds.shape[1], all_seeds.mean(axis=1)
    spread: NDArray[np.float64] = mean + (drawn.mean(axis=1) - mean) * np.sqrt(seeds / max(1, seeds - 1))
    return spread.clip(0)


def errors(datasets: Sequence[Units]) -> NDArray[np.float64]:
    """Mean error rate of each method over units."""
    return np.array([[1 - right.mean() for right in unit] for units in datasets for unit in units]).mean(axis=0)


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of some values."""
    low, high = np.quantile(values, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return float(low), float(high)
