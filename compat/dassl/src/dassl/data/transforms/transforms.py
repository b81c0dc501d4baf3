"""Image transforms, composed from the section INPUT of the config."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torchvision import transforms as T
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode
from yacs.config import CfgNode

from .custom import Cutout, GaussianNoise, InstanceNormalization, Random2DTranslation
from .randaugment import RandAugment, RandAugment2, RandAugmentFixMatch

__all__ = [
    "INTERPOLATION_MODES",
    "Cutout",
    "GaussianNoise",
    "InstanceNormalization",
    "Random2DTranslation",
    "build_transform",
]

INTERPOLATION_MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}

Step = tuple[str, Any]  # a step's title, which is printed, and the transform


def _mode(options: CfgNode) -> InterpolationMode:
    return INTERPOLATION_MODES[options.INTERPOLATION]


def _shown_size(options: CfgNode) -> str:
    return "{}x{}".format(*options.SIZE)


def _resize_edge(options: CfgNode) -> Step:
    edge = max(options.SIZE)
    return f"resize the smaller edge to {edge}", T.Resize(edge, interpolation=_mode(options))


def _random_resized_crop(options: CfgNode) -> Step:
    size, scale = tuple(options.SIZE), options.get("RRCROP_SCALE", (0.08, 1.0))  # missing in UPL's configs
    crop = T.RandomResizedCrop(size, scale=tuple(scale), interpolation=_mode(options))
    return f"random resized crop (size={size}, scale={scale})", crop


def _policy(name: str, policy: AutoAugmentPolicy) -> Callable[[CfgNode], Step]:
    return lambda options: (f"{name} policy", T.AutoAugment(policy, fill=(128, 128, 128)))


def _colorjitter(options: CfgNode) -> Step:
    b, c, s, h = (options[f"COLORJITTER_{letter}"] for letter in "BCSH")
    title = f"color jitter (brightness={b}, contrast={c}, saturation={s}, hue={h})"
    return title, T.ColorJitter(brightness=b, contrast=c, saturation=s, hue=h)


# In the order of application.
STEPS: dict[str, Callable[[CfgNode], Step]] = {
    "resize": lambda o: (f"resize to {_shown_size(o)}", T.Resize(tuple(o.SIZE), interpolation=_mode(o))),
    "resize_edge": _resize_edge,
    "center_crop": lambda o: (f"{_shown_size(o)} center crop", T.CenterCrop(tuple(o.SIZE))),
    "random_translation": lambda o: ("random translation", Random2DTranslation(*o.SIZE)),
    "random_crop": lambda o: (
        f"random crop (padding = {o.CROP_PADDING})",
        T.RandomCrop(tuple(o.SIZE), padding=o.CROP_PADDING),
    ),
    "random_resized_crop": _random_resized_crop,
    "random_flip": lambda o: ("random flip", T.RandomHorizontalFlip()),
    "imagenet_policy": _policy("imagenet", AutoAugmentPolicy.IMAGENET),
    "cifar10_policy": _policy("cifar10", AutoAugmentPolicy.CIFAR10),
    "svhn_policy": _policy("svhn", AutoAugmentPolicy.SVHN),
    "randaugment": lambda o: (
        f"randaugment (n={o.RANDAUGMENT_N}, m={o.RANDAUGMENT_M})",
        RandAugment(o.RANDAUGMENT_N, o.RANDAUGMENT_M),
    ),
    "randaugment_fixmatch": lambda o: (
        f"randaugment_fixmatch (n={o.RANDAUGMENT_N})",
        RandAugmentFixMatch(o.RANDAUGMENT_N),
    ),
    "randaugment2": lambda o: (f"randaugment2 (n={o.RANDAUGMENT_N})", RandAugment2(o.RANDAUGMENT_N)),
    "colorjitter": _colorjitter,
    "randomgrayscale": lambda o: ("random gray scale", T.RandomGrayscale(p=o.RGS_P)),
    "gaussian_blur": lambda o: (
        f"gaussian blur (kernel={o.GB_K})",
        T.RandomApply([T.GaussianBlur(o.GB_K)], p=o.GB_P),
    ),
    "to_tensor": lambda o: ("to torch tensor of range [0, 1]", T.ToTensor()),
    "cutout": lambda o: (
        f"cutout (n_holes={o.CUTOUT_N}, length={o.CUTOUT_LEN})",
        Cutout(o.CUTOUT_N, o.CUTOUT_LEN),
    ),
    "normalize": lambda o: (
        f"normalization (mean={o.PIXEL_MEAN}, std={o.PIXEL_STD})",
        T.Normalize(mean=o.PIXEL_MEAN, std=o.PIXEL_STD),
    ),
    "gaussian_noise": lambda o: (
        f"gaussian noise (mean={o.GN_MEAN}, std={o.GN_STD})",
        GaussianNoise(o.GN_MEAN, o.GN_STD),
    ),
    "instance_norm": lambda o: ("instance normalization", InstanceNormalization()),
}
CHOICES = [name for name in STEPS if name not in ("resize", "resize_edge", "to_tensor")]


def build_transform(cfg: CfgNode, is_train: bool = True, choices: Sequence[str] | None = None) -> Any:
    """Compose the transform for training or test. The order of steps does not depend on the order of the choices.

    Args:
        cfg: Config, whose section INPUT is read.
        is_train: Whether the transform is for training.
        choices: Names of transforms to use instead of INPUT.TRANSFORMS.

    Returns:
        A torchvision Compose; None if INPUT.NO_TRANSFORM is set.

    Raises:
        AssertionError: If a choice is unknown.
    """
    if cfg.INPUT.NO_TRANSFORM:
        print("Note: no transform is applied!")
        return None
    chosen = set(cfg.INPUT.TRANSFORMS if choices is None else choices)
    if unknown := sorted(chosen.difference(CHOICES)):
        raise AssertionError(f"INPUT.TRANSFORMS has {unknown[0]!r}; expected some of {CHOICES}")
    print(f"Building transform_{'train' if is_train else 'test'}")
    return _compose(cfg.INPUT, _train_names(chosen) if is_train else _test_names(chosen), announce=True)


def plain_transform(cfg: CfgNode) -> Any:
    """Compose the transform of the unaugmented image ("img0"): resized, as a tensor, and normalized as for training."""
    wanted = {"resize", "to_tensor"} | {"normalize"}.intersection(cfg.INPUT.TRANSFORMS)
    return _compose(cfg.INPUT, wanted, announce=False)


def _train_names(chosen: set[str]) -> set[str]:
    resizes = not chosen & {"random_crop", "random_resized_crop"}
    return (chosen - {"center_crop"}) | {"to_tensor"} | ({"resize"} if resizes else set())


def _test_names(chosen: set[str]) -> set[str]:
    return {"resize_edge", "center_crop", "to_tensor"} | (chosen & {"normalize", "instance_norm"})


def _compose(options: CfgNode, names: set[str], announce: bool) -> Any:
    steps = [make(options) for name, make in STEPS.items() if name in names]
    if announce:
        print("\n".join(f"+ {title}" for title, _ in steps))
    return T.Compose([step for _, step in steps])
