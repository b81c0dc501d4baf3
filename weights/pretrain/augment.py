"""Augmentation of drawings, in batches: random geometry, colours, backgrounds and resolutions.

Every function takes its random numbers from the given generator, so that a batch can be reproduced.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2.functional import normalize

from coft.backbones.architecture import CLIP_MEAN, CLIP_STD

LUMA = torch.tensor([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Drawings:
    """A batch of drawings, channels in 0..1.

    Attributes:
        paint: Colours, premultiplied by opacity, ``[B, 3, H, W]``; zero for drawings of a single colour.
        opacity: Opacity, ``[B, 1, H, W]``.
        silhouette: Opacity with enclosed areas filled, ``[B, 1, H, W]``.
        coloured: Whether the drawing has its own colours, bool ``[B]``.
        glyph: Whether it is a letter or a digit, bool ``[B]``.
    """

    paint: Tensor
    opacity: Tensor
    silhouette: Tensor
    coloured: Tensor
    glyph: Tensor


def picture(drawings: Drawings, strength: float, generator: torch.Generator) -> Tensor:
    """Augment and normalise drawings.

    Args:
        drawings: B drawings.
        strength: Strength of the augmentation: 1 for the full range of changes, 0 for random colours only.
        generator: Source of all random numbers.

    Returns:
        Pictures, normalised as CLIP's input, float32 ``[B, 3, H, W]``.
    """
    moved = move(drawings, strength, generator)
    painted = compose(moved, strength, generator)
    degraded = degrade(painted, drawings.glyph, strength, generator)
    return normalize(degraded, CLIP_MEAN, CLIP_STD)


def _uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator) * (high - low) + low


def _chance(generator: torch.Generator, probability: float | Tensor, count: int) -> Tensor:
    return torch.rand(count, generator=generator) < probability


def move(drawings: Drawings, strength: float, generator: torch.Generator) -> Drawings:
    """Rotate, shear, scale, shift and bend every drawing, and make some strokes thicker or thinner."""
    stacked = torch.cat([drawings.paint, drawings.opacity, drawings.silhouette], 1)
    grid = _affine_grid(stacked, drawings.glyph, strength, generator)
    grid = grid + _bend(stacked, drawings.glyph, strength, generator)
    warped = F.grid_sample(stacked, grid, align_corners=False)
    opacity = _restroke(warped[:, 3:4], ~drawings.coloured, strength, generator)
    return Drawings(warped[:, :3], opacity, warped[:, 4:5], drawings.coloured, drawings.glyph)


def _affine_grid(stacked: Tensor, glyph: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    count = len(stacked)
    angle = _uniform(generator, -0.3, 0.3, count) * strength
    shear = _uniform(generator, -0.25, 0.25, count) * strength
    zoom = torch.exp(_uniform(generator, -0.12, 0.4, count) * strength)
    aspect = torch.exp(_uniform(generator, -0.2, 0.2, count) * strength * (1 + glyph.float()))
    shift = _uniform(generator, -0.2, 0.2, count, 2) * strength
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    rows = [cos * aspect, -sin + shear, shift[:, 0], sin, cos / aspect, shift[:, 1]]
    return F.affine_grid(torch.stack(rows, 1).view(count, 2, 3), list(stacked.shape), align_corners=False)


def _bend(stacked: Tensor, glyph: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    count, _, height, width = stacked.shape
    size = _uniform(generator, 0, 0.1, count) * (0.5 + glyph.float()) * strength
    coarse = torch.randn(count, 2, 4, 4, generator=generator) * size.view(-1, 1, 1, 1)
    fine = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    return fine.permute(0, 2, 3, 1)


def _restroke(opacity: Tensor, allowed: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    change = torch.rand(len(opacity), generator=generator)
    opacity = opacity.clone()
    for selected, sign in ((change < 0.25 * strength, 1), (change > 1 - 0.08 * strength, -1)):
        rows = (selected & allowed).nonzero().squeeze(1)
        if len(rows):
            opacity[rows] = sign * F.max_pool2d(sign * opacity[rows], 3, 1, 1)
    return opacity


def compose(drawings: Drawings, strength: float, generator: torch.Generator) -> Tensor:
    """Paint drawings on random backgrounds.

    A drawing of a single colour gets a random one. Some of these have enclosed areas filled with another colour, and
    some become silhouettes; letters and digits do not, because an 8 would become a blob.

    Returns:
        Pictures in 0..1, ``[B, 3, H, W]``.
    """
    count = len(drawings.opacity)
    ground = _grounds(count, generator)
    ground = torch.where(drawings.coloured[:, None], _apart(ground, _own_luma(drawings)), ground)
    ink = _inks(ground, generator)
    fill = _inks(ground, generator)
    style = torch.rand(count, generator=generator) + drawings.glyph.float()
    filled = ((style < 0.3) & ~drawings.coloured).view(-1, 1, 1, 1)
    silhouette_only = (style < 0.12).view(-1, 1, 1, 1)
    area, line = drawings.silhouette, drawings.opacity
    canvas = ground[..., None, None].expand(-1, -1, *line.shape[2:])
    canvas = torch.where(filled, canvas * (1 - area) + fill[..., None, None] * area, canvas)
    one_ink = canvas * (1 - line) + ink[..., None, None] * line
    one_ink = torch.where(silhouette_only, canvas, one_ink)
    painted = canvas * (1 - line) + drawings.paint
    return _shade(torch.where(drawings.coloured.view(-1, 1, 1, 1), painted, one_ink), strength, generator)


def _grounds(count: int, generator: torch.Generator) -> Tensor:
    """Draw background colours: 60 % black or white, the others any colour; ``[B, 3]``."""
    colour = torch.rand(count, 3, generator=generator)
    kind = torch.rand(count, 1, generator=generator)
    plain = (kind < 0.3).float()  # white below 0.3, black below 0.6
    return torch.where(kind < 0.6, plain, colour)


def _own_luma(drawings: Drawings) -> Tensor:
    weight = drawings.opacity.sum((1, 2, 3)).clamp_min(1)
    return (drawings.paint.sum((2, 3)) @ LUMA) / weight


def _apart(ground: Tensor, luma: Tensor) -> Tensor:
    """Replace backgrounds without contrast to the brightness of a drawing."""
    vanishing = ((ground @ LUMA) - luma).abs() < 0.3
    return torch.where(vanishing[:, None], (luma < 0.5).float()[:, None], ground)


def _inks(ground: Tensor, generator: torch.Generator) -> Tensor:
    """Draw colours with contrast to their backgrounds, half of them grey; ``[B, 3]``."""
    count = len(ground)
    ink = torch.rand(count, 3, generator=generator)
    ink = torch.where(_chance(generator, 0.5, count)[:, None], ink.mean(1, keepdim=True), ink)
    luma = ground @ LUMA
    towards = (luma < 0.5).float()[:, None]
    push = _uniform(generator, 0.3, 1.0, count, 1)
    near = ((ink @ LUMA) - luma).abs()[:, None] < 0.45
    push = torch.where(near, push.clamp_min(0.8), push * 0.5)
    return ink + (towards - ink) * push


def _shade(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    coarse = 1 + 0.2 * strength * torch.randn(len(images), 1, 3, 3, generator=generator)
    light = F.interpolate(coarse, images.shape[2:], mode="bilinear", align_corners=True)
    return (images * light).clamp(0, 1)


def degrade(images: Tensor, glyph: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Make some pictures grey, low in resolution or contrast, or noisy; ``[B, 3, H, W]`` in 0..1."""
    count = len(images)
    grey = _chance(generator, 0.2, count).view(-1, 1, 1, 1)
    images = torch.where(grey, torch.einsum("bchw,c->bhw", images, LUMA)[:, None], images)
    images = _coarse(images, glyph, strength, generator)
    contrast = torch.exp(_uniform(generator, -0.5, 0.2, count, 1, 1, 1) * strength)
    level = _uniform(generator, 0, 1, count, 1, 1, 1)
    images = (images - level) * contrast + level
    sigma = 0.1 * strength * _uniform(generator, -1.0, 1.0, count, 1, 1, 1).clamp_min(0)
    return (images + sigma * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def _coarse(images: Tensor, glyph: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    draw = torch.rand(len(images), generator=generator) / (0.3 + 0.25 * glyph.float()) / max(strength, 1e-6)
    images = images.clone()
    sizes = (8, 10, 14, 20, 28)
    for position, size in enumerate(sizes):
        rows = ((draw * len(sizes)).long() == position).nonzero().squeeze(1)
        if len(rows):
            small = F.interpolate(images[rows], (size, size), mode="area")
            images[rows] = F.interpolate(small, images.shape[2:], mode="bicubic", align_corners=False)
    return images.clamp(0, 1)
