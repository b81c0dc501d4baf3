"""Transforms that torchvision lacks."""

from __future__ import annotations

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torchvision import transforms as T
from torchvision.transforms import InterpolationMode


class Random2DTranslation(nn.Module):
    """Enlarge an image by an eighth and crop it at random, with probability p; else resize it.

    Args:
        height: Height of the result.
        width: Width of the result.
        p: Probability of the crop.
        interpolation: Interpolation mode for resizing.
    """

    def __init__(
        self,
        height: int,
        width: int,
        p: float = 0.5,
        interpolation: InterpolationMode = InterpolationMode.BILINEAR,
    ) -> None:
        super().__init__()
        self.p = p
        self.plain = T.Resize((height, width), interpolation=interpolation)
        larger = (int(height * 1.125), int(width * 1.125))
        self.shifted = T.Compose([T.Resize(larger, interpolation=interpolation), T.RandomCrop((height, width))])

    def forward(self, img: Image) -> Image:
        """Transform an image."""
        return self.shifted(img) if torch.rand(1) < self.p else self.plain(img)


class InstanceNormalization(nn.Module):
    """Give each channel mean 0 and standard deviation 1.

    Args:
        eps: Term added to the standard deviation.
    """

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, img: Tensor) -> Tensor:
        """Transform a tensor of shape (C, H, W)."""
        std, mean = torch.std_mean(img, dim=(1, 2), keepdim=True)
        return (img - mean) / (std + self.eps)


class Cutout(nn.Module):
    """Set random squares to zero, which may extend beyond the image (DeVries and Taylor 2017).

    Args:
        n_holes: Number of squares.
        length: Length of their sides in pixels.
    """

    def __init__(self, n_holes: int = 1, length: int = 16) -> None:
        super().__init__()
        self.n_holes = n_holes
        self.length = length

    def forward(self, img: Tensor) -> Tensor:
        """Transform a tensor of shape (C, H, W)."""
        img = img.clone()
        height, width = img.shape[-2:]
        for _ in range(self.n_holes):
            top = int(torch.randint(height, ())) - self.length // 2
            left = int(torch.randint(width, ())) - self.length // 2
            img[..., max(top, 0) : max(top + self.length, 0), max(left, 0) : max(left + self.length, 0)] = 0
        return img


class GaussianNoise(nn.Module):
    """Add Gaussian noise, with probability p.

    Args:
        mean: Mean of the noise.
        std: Standard deviation of the noise.
        p: Probability of adding noise.
    """

    def __init__(self, mean: float = 0.0, std: float = 0.15, p: float = 0.5) -> None:
        super().__init__()
        self.mean = mean
        self.std = std
        self.p = p

    def forward(self, img: Tensor) -> Tensor:
        """Transform a tensor."""
        return img + torch.randn_like(img) * self.std + self.mean if torch.rand(1) < self.p else img
