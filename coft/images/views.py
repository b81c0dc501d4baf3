"""Views of an image: plain as in the test, weakly augmented, or strongly augmented.

Suitable augmentations depend on the kind of images, not on their labels. `Inputs.augment` (INPUT.AUGMENT in the config
of a data set) is a key of `AUGMENTATIONS`. A view is uint8; `normalize` converts a whole batch of views to floats at
once, which costs little more than for a single image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from coft.core.errors import UserError, did_you_mean

Transforms = list[Any]


@dataclass(frozen=True)
class Inputs:
    """Input format of CLIP, and kind of augmentation.

    Attributes:
        size: Side of the square input, in pixels.
        mean: Mean of each channel, for normalization.
        std: Standard deviation of each channel, for normalization.
        interpolation: "bicubic", "bilinear" or "nearest".
        augment: A key of `AUGMENTATIONS`.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    augment: str = "natural"


@dataclass(frozen=True)
class View:
    """Transform in two stages: a deterministic one, whose result can be cached, and the remaining one.

    Attributes:
        fixed: First stage, from an image to an image, without randomness; None if there is no such stage.
        rest: Second stage, from an image to a uint8 tensor of shape (..., 3, size, size).
    """

    fixed: Callable[[Image.Image], Image.Image] | None
    rest: Callable[[Image.Image], Tensor]

    def __call__(self, image: Image.Image) -> Tensor:
        """Apply both stages. Shape (..., 3, size, size), uint8."""
        return self.rest(image if self.fixed is None else self.fixed(image))


def plain_view(inputs: Inputs) -> View:
    """Return the plain view, as in the test: shorter side resized, centre crop. Shape (3, size, size)."""
    size, mode = inputs.size, InterpolationMode(inputs.interpolation)
    return View(None, v2.Compose([v2.Resize(size, interpolation=mode), v2.CenterCrop(size), v2.PILToTensor()]))


def weak_view(inputs: Inputs, *more: Any) -> View:
    """Return a weakly augmented view, of the kind `Inputs.augment`, with more transforms. Shape (3, size, size)."""
    name = inputs.augment
    if name not in AUGMENTATIONS:
        raise UserError(f"INPUT.AUGMENT is {name!r}; {did_you_mean(name, AUGMENTATIONS)}")
    fixed, random = AUGMENTATIONS[name](inputs.size, InterpolationMode(inputs.interpolation))
    return View(v2.Compose(fixed) if fixed else None, v2.Compose([*random, *more, v2.PILToTensor()]))


def label_view(inputs: Inputs, count: int) -> View:
    """Return a view that stacks the plain view and `count - 1` weak views. Shape (count, 3, size, size)."""
    return View(None, partial(_stack_views, [plain_view(inputs), *[weak_view(inputs)] * (count - 1)]))


def _stack_views(views: Sequence[Callable[[Image.Image], Tensor]], image: Image.Image) -> Tensor:
    return torch.stack([view(image) for view in views])


VIEWS: dict[str, Callable[[Inputs], View]] = {
    "plain": plain_view,
    "weak": weak_view,
    "strong": lambda inputs: weak_view(inputs, v2.RandAugment(num_ops=2, magnitude=9)),  # of medium strength
}


def view_of(inputs: Inputs, kinds: Sequence[str]) -> View:
    """Return a view of one or several kinds.

    Args:
        inputs: Input format and kind of augmentation.
        kinds: Keys of `VIEWS`. Several kinds must share their fixed stage, as "strong" and "weak" do.

    Returns:
        The view; with several kinds, their views of the same image are stacked. Shape (3, size, size), or (len(kinds),
        3, size, size).
    """
    views = [VIEWS[kind](inputs) for kind in kinds]
    return views[0] if len(views) == 1 else View(views[0].fixed, partial(_stack_views, [view.rest for view in views]))


def _natural(size: int, mode: InterpolationMode) -> tuple[Transforms, Transforms]:
    return [], [v2.RandomResizedCrop(size, scale=(0.5, 1.0), interpolation=mode), v2.RandomHorizontalFlip()]


def _symbols(size: int, mode: InterpolationMode) -> tuple[Transforms, Transforms]:
    """For signs and drawings: no flips or rotations, which could change the class. Padding continues the background."""
    resize = v2.Resize((size, size), interpolation=mode)
    crop = v2.RandomResizedCrop(size, scale=(0.7, 1.0), ratio=(0.9, 1.1), interpolation=mode)
    return [resize, v2.Pad(size // 16, padding_mode="edge")], [crop]


def _aerial(size: int, mode: InterpolationMode) -> tuple[Transforms, Transforms]:
    """For images from above, which have no upright orientation."""
    quarter_turns = v2.RandomChoice([v2.Identity(), *(v2.RandomRotation((a, a)) for a in (90, 180, 270))])
    fixed, random = _natural(size, mode)
    return fixed, [*random, quarter_turns]


# Each function returns the deterministic transforms, which come first, and the random ones.
AUGMENTATIONS: dict[str, Callable[[int, InterpolationMode], tuple[Transforms, Transforms]]] = {
    "natural": _natural,
    "symbols": _symbols,
    "aerial": _aerial,
}


def normalize(inputs: Inputs) -> Callable[[Tensor], Tensor]:
    """Return a function that normalizes views for CLIP: uint8 to float32, shape (..., 3, size, size)."""
    normalization = v2.Normalize(mean=list(inputs.mean), std=list(inputs.std))
    return v2.Compose([v2.ToDtype(torch.float32, scale=True), normalization])
