"""RandAugment (Cubuk et al. 2020) in three variants, named in configs.

An operation has a range of values, in which a strength from 0 to 1 is a position. Ranges are those of the published
policies of RandAugment and FixMatch. Operations with a direction (shear, translation, rotation) draw it at random.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from PIL import Image, ImageEnhance, ImageOps

Operation = Callable[[Image.Image, float], Image.Image]
Ranges = list[tuple[Operation, float, float]]

_HOLE = (125, 123, 114)  # about the mean colour of natural images


def _signed(value: float) -> float:
    return value if random.random() < 0.5 else -value


def _solarize_add(img: Image.Image, value: float) -> Image.Image:
    """Brighten pixel values below 128."""
    return img.point([min(255, level + int(value)) if level < 128 else level for level in range(256)] * 3)


def _affine(entry: int) -> Operation:
    """Return the operation that sets one entry of the identity's affine matrix to the value."""

    def apply(img: Image.Image, value: float) -> Image.Image:
        matrix = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        matrix[entry] = _signed(value)
        return img.transform(img.size, Image.Transform.AFFINE, matrix)

    return apply


_shear_x, _shift_x, _shear_y, _shift_y = (_affine(entry) for entry in (1, 2, 3, 5))  # shifts are in pixels


def _hole(img: Image.Image, value: float) -> Image.Image:
    """Cover a random square with a side of `value` pixels."""
    side = int(value)
    left, top = (int(random.uniform(0, extent) - side / 2) for extent in img.size)
    covered = img.copy()
    covered.paste(_HOLE, (left, top, left + side, top + side))
    return covered


def _enhancement(enhancer: Callable[[Image.Image], Any]) -> Operation:
    """Return the operation of one of Pillow's enhancers; the value 1 leaves the image unchanged."""
    return lambda img, value: enhancer(img).enhance(value)


def _enhancers(low: float, high: float) -> Ranges:
    kinds = (ImageEnhance.Color, ImageEnhance.Contrast, ImageEnhance.Brightness, ImageEnhance.Sharpness)
    return [(_enhancement(kind), low, high) for kind in kinds]


_COMMON: Ranges = [
    (lambda img, value: ImageOps.autocontrast(img), 0, 1),
    (lambda img, value: ImageOps.equalize(img), 0, 1),
    (lambda img, value: ImageOps.posterize(img, max(1, int(value))), 4, 8),
    (lambda img, value: ImageOps.solarize(img, int(value)), 0, 256),
]
_TURNS: Ranges = [
    (lambda img, value: img.rotate(_signed(value)), 0, 30),
    (_shear_x, 0, 0.3),
    (_shear_y, 0, 0.3),
]
_TRANSLATIONS: Ranges = [  # by a share of the image
    (lambda img, value: _shift_x(img, value * img.width), 0, 0.3),
    (lambda img, value: _shift_y(img, value * img.height), 0, 0.3),
]
_IDENTITY: Ranges = [(lambda img, value: img, 0, 1)]
_INVERSION: Ranges = [(lambda img, value: ImageOps.invert(img), 0, 1)]
CLASSIC: Ranges = [
    *_COMMON,
    *_enhancers(0.1, 1.9),
    *_TURNS,
    *_INVERSION,
    (_solarize_add, 0, 110),
    (_hole, 0, 40),
    (_shift_x, 0, 100),
    (_shift_y, 0, 100),
]
RANDOM_STRENGTH: Ranges = [*_COMMON, *_enhancers(0.1, 1.9), *_TURNS, *_TRANSLATIONS, *_IDENTITY, *_INVERSION]
FIXMATCH: Ranges = [*_COMMON, *_enhancers(0.05, 0.95), *_TURNS, *_TRANSLATIONS, *_IDENTITY]


class RandAugment:
    """Apply `n` random operations with a fixed strength.

    Args:
        n: Number of operations.
        m: Strength, 0 to 30.

    Raises:
        ValueError: If the strength is out of range.
    """

    def __init__(self, n: int = 2, m: float = 10) -> None:
        if not 0 <= m <= 30:
            raise ValueError(f"INPUT.RANDAUGMENT_M is {m}; expected 0 to 30")
        self.n = n
        self.m = m

    def __call__(self, img: Image.Image) -> Image.Image:
        for operation, low, high in random.choices(CLASSIC, k=self.n):
            img = operation(img, low + self.m / 30 * (high - low))
        return img


class RandAugment2:
    """Apply `n` random operations with random strengths, each with probability `p`.

    Args:
        n: Number of operations.
        p: Probability of applying an operation.
    """

    ranges = RANDOM_STRENGTH

    def __init__(self, n: int = 2, p: float = 0.6) -> None:
        self.n = n
        self.p = p

    def __call__(self, img: Image.Image) -> Image.Image:
        for operation, low, high in random.choices(self.ranges, k=self.n):
            if random.random() < self.p:
                img = operation(img, random.uniform(low, high))
        return img


class RandAugmentFixMatch(RandAugment2):
    """Apply `n` random operations with random strengths, as FixMatch does (Sohn et al. 2020).

    Args:
        n: Number of operations.
    """

    ranges = FIXMATCH

    def __init__(self, n: int = 2) -> None:
        super().__init__(n, p=1.0)
