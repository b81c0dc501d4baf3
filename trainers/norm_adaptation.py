"""Norm adaptation: normalisation layers take over the statistics of the unlabeled images. Nothing is trained."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm
from yacs.config import CfgNode

from coft.backbones.descriptions import zero_shot_features
from coft.backbones.visual_tuning import NORMS, is_vit
from coft.images.unlabeled import plain_batches
from coft.runtime.ranges import check_share
from dassl.engine import TRAINER_REGISTRY
from trainers.base import ClipTrainer


def add_config(cfg: Any) -> None:
    """Add the keys of norm adaptation."""
    own = cfg.TRAINER.NORMADAPTATION = CfgNode()
    # Of the unlabeled images in the statistics of batch norms (1.0 is AdaBN); in a ViT, of the mean feature taken away.
    own.SHARE = 0.25


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


@TRAINER_REGISTRY.register()
class NormAdaptation(ClipTrainer):
    """Zero-shot CLIP with all templates, whose image encoder has seen the unlabeled images.

    A ResNet's batch norms get their statistics, as in AdaBN. Layer norms have no statistics of a data set: there the
    mean feature is what can be adapted, and some of it is taken away in the bias of the last one (after Zhou et al.
    2023, who subtract means of features at test). There is one model: two would be the same.

    Unlike the published method: statistics are mixed with those of pre-training (SHARE), and each batch is normalised
    by its own on the way.
    """

    label_free = True

    def check_cfg(self, cfg: Any) -> None:
        """Refuse what is no share."""
        super().check_cfg(cfg)
        check_share(cfg, "TRAINER.NORMADAPTATION.SHARE")

    def build_model(self) -> None:
        """Copy the image encoder; its norms are what is saved."""
        self.load_backbone()
        self.text = zero_shot_features(self, self.templates)
        self.visual = copy.deepcopy(self.clip_model.visual)
        self.register_model("norms", nn.ModuleList(m for m in self.visual.modules() if isinstance(m, NORMS)))

    def adapt(self) -> None:
        """Adapt the norms to the unlabeled images."""
        loader = tqdm(plain_batches(self.pool, self.cfg), "adapt norms", disable=None, leave=False)
        batches = (batch["all"]["view"].to(self.device) for batch in loader)
        change = centre_last_norm if is_vit(self.visual) else adapt_batch_norms
        change(self.visual, batches, self.cfg.TRAINER.NORMADAPTATION.SHARE)

    @torch.no_grad()
    def model_inference(self, image: Tensor) -> Tensor:
        """Logits of images. Shape (n, C)."""
        features = F.normalize(self.visual(image), dim=-1)
        return self.clip_model.logit_scale.exp() * features @ self.text.t()

    def train(self) -> None:  # type: ignore[override]
        """Adapt, save and evaluate."""
        self.set_model_mode("eval")
        self.adapt()
        self.save_model(0, self.output_dir)
        self.test()
        self.write_summary()
