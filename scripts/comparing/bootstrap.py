"""Paired bootstrap over seeds and test images: how far a difference could be from what other draws would give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
LEVEL = 0.95
Right = NDArray[np.bool_]  # (seeds, images): whether a method is right


def resampled(units: Sequence[tuple[Right, ...]], draws: int = DRAWS, seed: int = 0) -> NDArray[np.float64]:
    """Error rates of methods under the bootstrap.

    In each draw the units are drawn with replacement where there are several, then each one's seeds and images, the
    same for all methods.

    Args:
        units: For each pair of checkpoint and data set what each method has right; methods share seeds and images. A
            method with one seed is the same under all.
        draws: How many.
        seed: Of the draws.

    Returns:
        Mean error rate over units. Shape (draws, methods).
    """
    source = np.random.default_rng(seed)
    wrong = [_drawn(unit, draws, source) for unit in units]
    if len(units) == 1:
        return wrong[0]
    which = source.integers(len(units), size=(draws, len(units)))
    stacked = np.stack(wrong, axis=1)  # (draws, units, methods)
    return stacked[np.arange(draws)[:, None], which].mean(axis=1)


def _drawn(unit: tuple[Right, ...], draws: int, source: np.random.Generator) -> NDArray[np.float64]:
    images = unit[0].shape[1]
    seeds = max(len(right) for right in unit)
    result = np.empty((draws, len(unit)))
    for draw in range(draws):
        counts = np.bincount(source.integers(images, size=images), minlength=images)
        chosen = source.integers(seeds, size=seeds)
        for place, right in enumerate(unit):
            by_seed = (right @ counts) / images  # share right of each seed
            result[draw, place] = 1 - by_seed[chosen % len(right)].mean()
    return result


def errors(units: Sequence[tuple[Right, ...]]) -> NDArray[np.float64]:
    """Mean error rate of each method over units."""
    return np.array([[1 - right.mean() for right in unit] for unit in units]).mean(axis=0)


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of some values."""
    low, high = np.quantile(values, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return float(low), float(high)
