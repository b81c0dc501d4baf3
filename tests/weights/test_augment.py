"""Rendering of drawings with random colours."""

import pytest
import torch

from weights.pretrain.augment import LUMA, Drawings, compose, picture


def _drawings(count: int = 64, luma: float | None = None) -> Drawings:
    """Make squares with a hole, in a given brightness or in random colours."""
    line = torch.zeros(count, 1, 64, 64)
    line[:, :, 16:48, 16:48] = 1
    silhouette = line.clone()
    line[:, :, 24:40, 24:40] = 0
    paint = line.expand(-1, 3, -1, -1) * (luma or 0.0)
    coloured = torch.full((count,), luma is not None)
    return Drawings(paint, line, silhouette, coloured, torch.zeros(count, dtype=torch.bool))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("luma", [None, 0.0, 0.5, 1.0])
def test_drawing_contrasts_with_background(luma):
    images = compose(_drawings(256, luma), 0.0, _generator())
    brightness = torch.einsum("bchw,c->bhw", images, LUMA)
    contrast = (brightness[:, 20, 20] - brightness[:, 2, 2]).abs()
    assert contrast.min() > 0.2


def test_holes_of_letters_show_background():
    drawings = _drawings(256)
    letters = Drawings(*vars(drawings).values())
    letters.glyph.fill_(True)
    images = compose(letters, 0.0, _generator())
    assert torch.equal(images[:, :, 32, 32], images[:, :, 2, 2])


def test_seed_determines_pictures():
    first, again, other = (picture(_drawings(8), 1.0, _generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
