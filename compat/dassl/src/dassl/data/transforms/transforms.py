"""Image transforms, composed from the section INPUT of the config."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from yacs.config import CfgNode

CHOICES = [
    "random_flip",
    "random_resized_crop",
    "normalize",
    "instance_norm",
    "random_crop",
    "random_translation",
    "center_crop",
    "cutout",
    "imagenet_policy",
    "cifar10_policy",
    "svhn_policy",
    "randaugment",
    "randaugment_fixmatch",
    "randaugment2",
    "gaussian_noise",
    "colorjitter",
    "randomgrayscale",
    "gaussian_blur",
]

# Imported on first use: they need torchvision, whose import takes as long as the rest of the package.
_LAZY = {
    "INTERPOLATION_MODES": ".steps",
    "Random2DTranslation": ".custom",
    "Cutout": ".custom",
    "GaussianNoise": ".custom",
    "InstanceNormalization": ".custom",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name], __package__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
    from torchvision.transforms import Compose

    from .steps import STEPS

    made = [make(options) for name, make in STEPS.items() if name in names]
    for title, _ in made:
        if announce:
            print(f"+ {title}")
    return Compose([step for _, step in made])
