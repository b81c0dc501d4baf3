"""Norm adaptation: normalisation layers adopt statistics of the unlabeled images. Nothing is trained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from coft.backbones.architecture import timm_vit
from coft.backbones.visual_tuning import NORMS
from coft.core import settings as declared
from coft.core.errors import UserError
from coft.labelling.protocol import Engine

from .zero_shot import ZeroShot


@dataclass(frozen=True)
class NormAdaptationSettings:
    """Settings of norm adaptation."""

    share: float = declared.share(
        0.25, "share of the unlabeled images in the statistics of batch norms; in a ViT, of the mean feature taken away"
    )


@torch.no_grad()
def adapt_batch_norms(visual: nn.Module, batches: Iterable[Tensor], share: float) -> None:
    """Mix statistics of some images into all batch norms (AdaBN, Li et al. 2016).

    All layers are adapted in one pass, in which each batch is normalised by its own statistics. Means and variances are
    averaged over batches, weighted by batch size.

    Args:
        visual: Image encoder, in evaluation mode.
        batches: Batches of images. Shape (n, 3, size, size) each.
        share: Weight of the new statistics.
    """
    norms: list[Any] = [module for module in visual.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
    seen = 0
    for images in batches:
        seen += len(images)
        for norm in norms:
            norm.train().momentum = len(images) / seen  # weight 1 for the first batch, which replaces old statistics
        visual(images)
    for norm, (mean, variance) in zip(norms, before, strict=True):
        norm.running_mean.lerp_(mean, 1 - share)
        norm.running_var.lerp_(variance, 1 - share)
        norm.eval()


@torch.no_grad()
def centre_last_norm(visual: Any, batches: Iterable[Tensor], share: float) -> None:
    """Subtract a share of the last layer norm's mean output over some images from its bias.

    Args:
        visual: Image encoder with a `last_norm`, in evaluation mode.
        batches: Batches of images. Shape (n, 3, size, size) each.
        share: Share of the mean that is subtracted.
    """
    norm, pool = last_norm(visual)
    outputs: list[Tensor] = []
    hook = norm.register_forward_hook(lambda module, inputs, output: outputs.append(pool(output).double().cpu()))
    for images in batches:
        visual(images)
    hook.remove()
    mean = torch.cat(outputs).mean(dim=0)
    norm.bias.sub_((share * mean).to(norm.bias))


def last_norm(visual: Any) -> tuple[Any, Callable[[Tensor], Tensor]]:
    """Return the layer norm before the projection, and a function that pools its output to features (n, width).

    Raises:
        UserError: If there is no layer norm with a bias, or attention pooling follows it.
    """
    trunk: Any = getattr(visual, "trunk", None)
    if trunk is None and hasattr(visual, "ln_post") and getattr(visual, "attn_pool", None) is None:
        by_class = getattr(visual, "pool_type", "tok") == "tok"
        return visual.ln_post, lambda x: x if x.dim() == 2 else x[:, 0] if by_class else x[:, 1:].mean(dim=1)
    if timm_vit(visual) and trunk.attn_pool is None:
        after = isinstance(trunk.fc_norm, nn.LayerNorm)
        norm, pool = (trunk.fc_norm, torch.clone) if after else (trunk.norm, trunk.pool)
    else:
        norm, pool = getattr(getattr(trunk, "head", None), "norm", None), partial(torch.flatten, start_dim=1)
    if not isinstance(norm, nn.LayerNorm) or norm.bias is None:
        raise UserError(
            "NormAdaptation: this image encoder has neither batch norms nor a layer norm before its projection; use "
            "another backbone"
        )
    return norm, pool


def has_batch_norms(visual: nn.Module) -> bool:
    """Return whether an image encoder has batch norms, and thus statistics of a data set."""
    return any(isinstance(module, nn.BatchNorm2d) for module in visual.modules())


class NormAdaptation(ZeroShot):
    """Zero-shot CLIP with all templates, whose image encoder is adapted to the unlabeled images.

    A ResNet's batch norms adopt the statistics of the images, as in AdaBN. Layer norms have no statistics of a data
    set. Instead, a share of the mean feature is subtracted from the bias of the last one (after Zhou et al. 2023, who
    subtract mean features at test time). There is one model, since two would be the same.

    Unlike the published method: statistics are mixed with those of pre-training (`share`), and each batch is normalised
    by its own statistics during adaptation.

    Args:
        engine: The engine that runs the method.
        settings: Settings of norm adaptation.
    """

    keeps_stages = False

    def __init__(self, engine: Engine, settings: NormAdaptationSettings) -> None:
        self.adapted: Any = copy.deepcopy(engine.clip.visual)
        self.change = adapt_batch_norms if has_batch_norms(self.adapted) else centre_last_norm
        if self.change is centre_last_norm:
            last_norm(self.adapted)  # raises early if there is none
        super().__init__(engine, self.adapted, engine.clip.zero_shot_text())
        self.settings = settings
        self.models = {"norms": nn.ModuleList(m for m in self.adapted.modules() if isinstance(m, NORMS))}

    def begin(self) -> None:
        """Adapt the norms to the unlabeled images."""
        self.adapted.eval()
        batches = (batch.to(self.engine.device) for batch in self.engine.images.plain())
        self.change(self.adapted, batches, self.settings.share)
