"""Views of an image: as the test sees it, weakly augmented, strongly augmented.

Which augmentations fit depends on what the pictures are, not on their labels: `Inputs.augment` (INPUT.AUGMENT of a data
set's config) names one of the kinds below. A view is made of bytes, and a batch of views becomes numbers at once
(`normalize`): a transform costs much the same for an image as for a batch.
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
    """What CLIP reads, and how images are augmented.

    Attributes:
        size: Side of the square input, in pixels.
        mean: Of each channel, for normalisation.
        std: Likewise.
        interpolation: bicubic, bilinear or nearest.
        augment: A name of `AUGMENTATIONS`.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    augment: str = "natural"


@dataclass(frozen=True)
class View:
    """A view in two stages: what is the same each time, so that its result can be kept, and the rest.

    Attributes:
        fixed: The first stage, an image to an image, without chance; None where there is nothing of the kind.
        rest: The second stage, to uint8 of shape (..., 3, size, size).
    """

    fixed: Callable[[Image.Image], Image.Image] | None
    rest: Callable[[Image.Image], Tensor]

    def __call__(self, image: Image.Image) -> Tensor:
        """Both stages."""
        return self.rest(image if self.fixed is None else self.fixed(image))


def plain_view(inputs: Inputs) -> View:
    """The view of the test: shorter side to the input size, centre crop. Shape (3, size, size)."""
    size, mode = inputs.size, InterpolationMode(inputs.interpolation)
    return View(None, v2.Compose([v2.Resize(size, interpolation=mode), v2.CenterCrop(size), v2.PILToTensor()]))


def weak_view(inputs: Inputs) -> View:
    """A view that leaves the class beyond doubt, augmented as `Inputs.augment` says. Shape (3, size, size)."""
    fixed, drawn = _geometry(inputs)
    return View(fixed, v2.Compose([*drawn, v2.PILToTensor()]))


def strong_view(inputs: Inputs) -> View:
    """The weak view with RandAugment (two operations of medium strength) on top. Shape (3, size, size)."""
    fixed, drawn = _geometry(inputs)
    return View(fixed, v2.Compose([*drawn, v2.RandAugment(num_ops=2, magnitude=9), v2.PILToTensor()]))


def with_weak(first: Callable[[Inputs], View], inputs: Inputs) -> View:
    """A view and a weak one of the same image. Shape (2, 3, size, size)."""
    views = (first(inputs), weak_view(inputs))
    return View(views[0].fixed, partial(_stack, [view.rest for view in views]))


def for_labels(inputs: Inputs, count: int) -> View:
    """The plain view and weak ones of the same image, `count` together. Shape (count, 3, size, size)."""
    return View(None, partial(_stack, [plain_view(inputs), *[weak_view(inputs)] * (count - 1)]))


def _stack(views: Sequence[Callable[[Image.Image], Tensor]], image: Image.Image) -> Tensor:
    return torch.stack([view(image) for view in views])


VIEWS: dict[str, Callable[[Inputs], View]] = {
    "plain": plain_view,
    "weak": weak_view,
    "strong": strong_view,
    "strong and weak": partial(with_weak, strong_view),
}


def _natural(size: int, mode: InterpolationMode) -> tuple[Transforms, Transforms]:
    return [], [v2.RandomResizedCrop(size, scale=(0.5, 1.0), interpolation=mode), v2.RandomHorizontalFlip()]


def _symbols(size: int, mode: InterpolationMode) -> tuple[Transforms, Transforms]:
    """Signs and drawings: a mirrored or rotated one is another one, and its ground goes on beyond the edge."""
    resize = v2.Resize((size, size), interpolation=mode)
    zoom = v2.RandomResizedCrop(size, scale=(0.7, 1.0), ratio=(0.9, 1.1), interpolation=mode)
    return [resize, v2.Pad(size // 16, padding_mode="edge")], [zoom]


def _aerial(size: int, mode: InterpolationMode) -> tuple[Transforms, Transforms]:
    """Views from above have no up."""
    quarter_turns = v2.RandomChoice([v2.Identity(), *(v2.RandomRotation((a, a)) for a in (90, 180, 270))])
    fixed, drawn = _natural(size, mode)
    return fixed, [*drawn, quarter_turns]


# Each gives the transforms that are the same each time, which come first, and those that are drawn.
AUGMENTATIONS: dict[str, Callable[[int, InterpolationMode], tuple[Transforms, Transforms]]] = {
    "natural": _natural,
    "symbols": _symbols,
    "aerial": _aerial,
}


def _geometry(inputs: Inputs) -> tuple[Callable[[Image.Image], Image.Image] | None, Transforms]:
    name = inputs.augment
    if name not in AUGMENTATIONS:
        raise UserError(f"INPUT.AUGMENT is {name!r}; {did_you_mean(name, AUGMENTATIONS)}")
    fixed, drawn = AUGMENTATIONS[name](inputs.size, InterpolationMode(inputs.interpolation))
    return v2.Compose(fixed) if fixed else None, drawn


def normalize(inputs: Inputs) -> Callable[[Tensor], Tensor]:
    """What turns views into numbers that CLIP reads: uint8 to float32 of the same shape (..., 3, size, size)."""
    statistics = v2.Normalize(mean=list(inputs.mean), std=list(inputs.std))
    return v2.Compose([v2.ToDtype(torch.float32, scale=True), statistics])
