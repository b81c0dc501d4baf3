"""Norm adaptation: normalisation layers take over the statistics of the unlabeled images. Nothing is trained."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from coft.backbones.backbone import ClassBackbone
from coft.backbones.visual_tuning import NORMS, is_vit
from coft.method import settings as declared
from coft.method.protocol import Images

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

    Layers are adapted in one pass, each batch normalised by its own statistics on the way, and means and variances
    averaged over the batches by their sizes.

    Args:
        visual: An image encoder, in evaluation mode.
        batches: Images, shape (n, 3, size, size) each.
        share: Weight of the new statistics.
    """
    norms: list[Any] = [module for module in visual.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
    seen = 0
    for images in batches:
        seen += len(images)
        for norm in norms:
            norm.train().momentum = len(images) / seen  # the first batch replaces what was there
        visual(images)
    for norm, (mean, variance) in zip(norms, before, strict=True):
        norm.running_mean.lerp_(mean, 1 - share)
        norm.running_var.lerp_(variance, 1 - share)
        norm.eval()


@torch.no_grad()
def centre_last_norm(visual: Any, batches: Iterable[Tensor], share: float) -> None:
    """Shift the bias of a ViT's last layer norm by some of its mean output over some images.

    Args:
        visual: CLIP's vision transformer, in evaluation mode.
        batches: Images, shape (n, 3, size, size) each.
        share: How much of the mean is taken away.
    """
    outputs: list[Tensor] = []
    hook = visual.ln_post.register_forward_hook(lambda module, inputs, output: outputs.append(output.double().cpu()))
    for images in batches:
        visual(images)
    hook.remove()
    mean = torch.cat(outputs).mean(dim=0)
    visual.ln_post.bias.sub_((share * mean).to(visual.ln_post.bias))


class NormAdaptation(ZeroShot):
    """Zero-shot CLIP with all templates, whose image encoder has seen the unlabeled images.

    A ResNet's batch norms get their statistics, as in AdaBN. Layer norms have no statistics of a data set: there the
    mean feature is what can be adapted, and some of it is taken away in the bias of the last one (after Zhou et al.
    2023, who subtract means of features at test). There is one model: two would be the same.

    Unlike the published method: statistics are mixed with those of pre-training (`share`), and each batch is normalised
    by its own on the way.

    Args:
        images: The unlabeled images.
        backbone: CLIP for the classes at hand.
        settings: See `NormAdaptationSettings`.
        device: Of the model.
    """

    def __init__(
        self, images: Images, backbone: ClassBackbone, settings: NormAdaptationSettings, device: torch.device
    ) -> None:
        self.adapted: Any = copy.deepcopy(backbone.visual)
        super().__init__(backbone.clip_model, self.adapted, backbone.zero_shot_text())
        self.images, self.settings, self.device = images, settings, device
        self.models = {"norms": nn.ModuleList(m for m in self.adapted.modules() if isinstance(m, NORMS))}

    def begin(self) -> None:
        """Adapt the norms to the unlabeled images."""
        self.adapted.eval()
        batches = (batch.to(self.device) for batch in self.images.plain())
        change = centre_last_norm if is_vit(self.adapted) else adapt_batch_norms
        change(self.adapted, batches, self.settings.share)
