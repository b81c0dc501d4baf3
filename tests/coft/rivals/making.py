"""Rivals on toy images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.backbones.backbone import ClassBackbone
from coft.core.world import SINGLE_PROCESS, World
from coft.engine.engine import Engine
from coft.engine.runtime import Runtime
from coft.rivals.cpl import CPL, CPLSettings
from coft.rivals.dpa import DPA, DPASettings
from coft.rivals.full_tuning import Supervised, SupervisedSettings
from coft.rivals.grip import GRIP, GRIPSettings
from coft.rivals.lafter import LaFTer, LaFTerSettings
from coft.rivals.must import MUST, MUSTSettings
from coft.rivals.prompt_tuning import UPL, CoOp, CoOpSettings, UPLSettings
from coft.rivals.self_training import SelfTraining, SelfTrainingSettings
from tests.coft.toys import CLASSES, Recorder, ToyBackbone, ToyImages, make_method
from tests.conftest import make_clip

# -------------------------------------------------------------------- full fine-tuning


def class_texts() -> list[Tensor]:
    """Two text features per class, one per template of the toy backbone."""
    words = torch.stack(ToyBackbone(ToyImages()).words)
    return list(F.normalize(words, dim=-1).unbind(dim=1))


def make_tuning(kind: str, images: ToyImages | None = None, truth: Tensor | None = None, **options: Any) -> Any:
    """Full fine-tuning on toy images, two epochs.

    Args:
        kind: "SelfTraining", "MUST", "DPA", "Supervised" or "LaFTer".
        images: Images.
        truth: Labels for `Supervised`; by default the classes, shifted by one.
        **options: `runtime`, `backbone`, and settings.
    """
    images, runtime, backbone = images or ToyImages(), options.pop("runtime", None), options.pop("backbone", None)
    truth = (images.truth + 1) % CLASSES if truth is None else truth
    short: dict[str, Any] = {"epochs": 2, "lr": 1e-2}
    kinds: dict[str, tuple[Any, Any]] = {
        "SelfTraining": (SelfTraining, SelfTrainingSettings),
        "MUST": (MUST, MUSTSettings),
        "DPA": (DPA, DPASettings),
        "Supervised": (partial(Supervised, truth), SupervisedSettings),
        "LaFTer": (partial(LaFTer, class_texts), partial(LaFTerSettings, text_steps=20)),
    }
    make, settings = kinds[kind]
    return make_method(
        make, settings(**(short | options)), Recorder(), images=images, backbone=backbone, runtime=runtime
    )


# -------------------------------------------------------------------- learned prompts

NAMES = ("cat", "dog", "bird")
COUNT = 18


class ClipBackbone(ClassBackbone):
    """CLIP without a feature cache, for toy images."""

    def cached_features(self, images: Any, num_views: int, key: Any, compute: Any) -> Tensor:
        return compute()


def make_clip_backbone(vit: bool = True, templates: Sequence[str] = ("a photo of a {}.",)) -> ClipBackbone:
    """A small CLIP for three classes."""
    return ClipBackbone(make_clip(vit).requires_grad_(False), NAMES, templates, {})


def make_images(world: World = SINGLE_PROCESS) -> Any:
    """Toy images of 32x32 pixels."""
    return ToyImages(COUNT, size=32, world=world)


def sgd(learner: nn.Module) -> tuple[Any, Any]:
    """Optimizer, and a schedule by epoch."""
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.01)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2)


def make_prompts(kind: Any, settings: Any, epochs: int, clip: ClipBackbone, runtime: Runtime | None = None) -> Any:
    """A method that learns prompts, with an engine."""
    runtime = runtime or Runtime(1)
    engine = Engine(make_images(runtime.world), clip, runtime, make_by_epoch=sgd)
    method = kind(engine, settings, epochs, Recorder())
    engine.attach(method)
    return method


def make_upl(clip: ClipBackbone, runtime: Runtime | None = None, **settings: Any) -> Any:
    """UPL with two prompts and two epochs."""
    short: dict[str, Any] = {"n_ctx": 4, "seeds_per_class": 3, "ensemble": 2}
    return make_prompts(UPL, UPLSettings(**(short | settings)), 2, clip, runtime)


def make_grip(clip: ClipBackbone, runtime: Runtime | None = None, epochs: int = 2, **settings: Any) -> Any:
    """GRIP with two prompts and three rounds."""
    short: dict[str, Any] = {"n_ctx": 4, "rounds": 3}
    return make_prompts(GRIP, GRIPSettings(**(short | settings)), epochs, clip, runtime)


def make_cpl(clip: ClipBackbone, runtime: Runtime | None = None, epochs: int = 2, **settings: Any) -> Any:
    """CPL with two prompts and three rounds."""
    short: dict[str, Any] = {"n_ctx": 4, "rounds": 3, "across": 0.5}
    return make_prompts(CPL, CPLSettings(**(short | settings)), epochs, clip, runtime)


def make_coop(
    clip: ClipBackbone, images: int = COUNT, epochs: int = 2, runtime: Runtime | None = None, **settings: Any
) -> Any:
    """CoOp on the labels of the first `images` images, in batches of six."""
    toys, world = make_images(), runtime.world if runtime else SINGLE_PROCESS
    batches = [{"img": toys.pixels[i : i + 6], "label": toys.truth[i : i + 6]} for i in range(0, images, 6)]
    return make_prompts(partial(CoOp, batches, world.part), CoOpSettings(**settings), epochs, clip, runtime)
