"""Steps of a transform, built from the section INPUT of the config, in the order in which they are applied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torchvision import transforms as T
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode
from yacs.config import CfgNode

from .custom import Cutout, GaussianNoise, InstanceNormalization, Random2DTranslation
from .randaugment import RandAugment, RandAugment2, RandAugmentFixMatch

INTERPOLATION_MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}
GREY = (128, 128, 128)

Made = tuple[str, Any]  # a step's title, which is printed, and the step


def _size(options: CfgNode) -> tuple[int, int]:
    height, width = options.SIZE
    return height, width


def _shown_size(options: CfgNode) -> str:
    return "{}x{}".format(*options.SIZE)


def _mode(options: CfgNode) -> InterpolationMode:
    return INTERPOLATION_MODES[options.INTERPOLATION]


def resize(options: CfgNode) -> Made:
    """Resize to SIZE, ignoring the aspect ratio."""
    return f"resize to {_shown_size(options)}", T.Resize(_size(options), interpolation=_mode(options))


def resize_edge(options: CfgNode) -> Made:
    """Resize the smaller edge to the larger of SIZE."""
    edge = max(options.SIZE)
    return f"resize the smaller edge to {edge}", T.Resize(edge, interpolation=_mode(options))


def center_crop(options: CfgNode) -> Made:
    """Crop SIZE from the centre."""
    return f"{_shown_size(options)} center crop", T.CenterCrop(_size(options))


def random_translation(options: CfgNode) -> Made:
    """Enlarge slightly and crop at random."""
    return "random translation", Random2DTranslation(*_size(options))


def random_crop(options: CfgNode) -> Made:
    """Pad and crop at random."""
    padding = options.CROP_PADDING
    return f"random crop (padding = {padding})", T.RandomCrop(_size(options), padding=padding)


def random_resized_crop(options: CfgNode) -> Made:
    """Crop a part of random size and resize it."""
    scale = options.get("RRCROP_SCALE", (0.08, 1.0))  # missing in UPL's configs
    crop = T.RandomResizedCrop(_size(options), scale=tuple(scale), interpolation=_mode(options))
    return f"random resized crop (size={_size(options)}, scale={scale})", crop


def random_flip(options: CfgNode) -> Made:
    """Mirror with probability 1/2."""
    return "random flip", T.RandomHorizontalFlip()


def _policy(name: str, policy: AutoAugmentPolicy) -> Callable[[CfgNode], Made]:
    return lambda options: (f"{name} policy", T.AutoAugment(policy, fill=GREY))


def randaugment(options: CfgNode) -> Made:
    """Apply RandAugment with a fixed strength."""
    n, m = options.RANDAUGMENT_N, options.RANDAUGMENT_M
    return f"randaugment (n={n}, m={m})", RandAugment(n, m)


def randaugment_fixmatch(options: CfgNode) -> Made:
    """Apply RandAugment as in FixMatch."""
    return f"randaugment_fixmatch (n={options.RANDAUGMENT_N})", RandAugmentFixMatch(options.RANDAUGMENT_N)


def randaugment2(options: CfgNode) -> Made:
    """Apply RandAugment with random strengths; each operation is skipped at random."""
    return f"randaugment2 (n={options.RANDAUGMENT_N})", RandAugment2(options.RANDAUGMENT_N)


def colorjitter(options: CfgNode) -> Made:
    """Change brightness, contrast, saturation and hue at random."""
    b, c, s, h = (options[f"COLORJITTER_{letter}"] for letter in "BCSH")
    title = f"color jitter (brightness={b}, contrast={c}, saturation={s}, hue={h})"
    return title, T.ColorJitter(brightness=b, contrast=c, saturation=s, hue=h)


def randomgrayscale(options: CfgNode) -> Made:
    """Convert to grey with probability RGS_P."""
    return "random gray scale", T.RandomGrayscale(p=options.RGS_P)


def gaussian_blur(options: CfgNode) -> Made:
    """Blur with probability GB_P."""
    blur = T.GaussianBlur(options.GB_K)
    return f"gaussian blur (kernel={options.GB_K})", T.RandomApply([blur], p=options.GB_P)


def to_tensor(options: CfgNode) -> Made:
    """Convert to a tensor. Shape (3, height, width)."""
    return "to torch tensor of range [0, 1]", T.ToTensor()


def cutout(options: CfgNode) -> Made:
    """Set random squares to zero."""
    n, length = options.CUTOUT_N, options.CUTOUT_LEN
    return f"cutout (n_holes={n}, length={length})", Cutout(n, length)


def normalize(options: CfgNode) -> Made:
    """Subtract the mean and divide by the standard deviation of each channel."""
    mean, std = options.PIXEL_MEAN, options.PIXEL_STD
    return f"normalization (mean={mean}, std={std})", T.Normalize(mean=mean, std=std)


def gaussian_noise(options: CfgNode) -> Made:
    """Add noise with probability 1/2."""
    mean, std = options.GN_MEAN, options.GN_STD
    return f"gaussian noise (mean={mean}, std={std})", GaussianNoise(mean, std)


def instance_norm(options: CfgNode) -> Made:
    """Normalize each channel of each image by its own statistics."""
    return "instance normalization", InstanceNormalization()


STEPS: dict[str, Callable[[CfgNode], Made]] = {
    "resize": resize,
    "resize_edge": resize_edge,
    "center_crop": center_crop,
    "random_translation": random_translation,
    "random_crop": random_crop,
    "random_resized_crop": random_resized_crop,
    "random_flip": random_flip,
    "imagenet_policy": _policy("imagenet", AutoAugmentPolicy.IMAGENET),
    "cifar10_policy": _policy("cifar10", AutoAugmentPolicy.CIFAR10),
    "svhn_policy": _policy("svhn", AutoAugmentPolicy.SVHN),
    "randaugment": randaugment,
    "randaugment_fixmatch": randaugment_fixmatch,
    "randaugment2": randaugment2,
    "colorjitter": colorjitter,
    "randomgrayscale": randomgrayscale,
    "gaussian_blur": gaussian_blur,
    "to_tensor": to_tensor,
    "cutout": cutout,
    "normalize": normalize,
    "gaussian_noise": gaussian_noise,
    "instance_norm": instance_norm,
}
