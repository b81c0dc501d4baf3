"""LaFTer (Mirza et al. 2023): a classifier trained on texts labels the images that tune it (our reconstruction)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.backbones.descriptions import descriptions_of, sentence_features, sentences_by_class
from coft.backbones.prompts import template_features
from coft.backbones.visual_tuning import check_module, light_module
from coft.method.peer import Peer
from coft.method.seeding import generator
from coft.runtime.ranges import check_not_negative, check_positive, check_share
from dassl.engine import TRAINER_REGISTRY

from .parts.full_tuning import tuning_keys
from .self_training import SelfTraining

log = logging.getLogger(__name__)


def add_config(cfg: Any) -> None:
    """Add LaFTer's keys: self-training's, CoFT's light visual module, and those of the text classifier."""
    own = cfg.TRAINER.LAFTER = tuning_keys(cfg)
    own.LR = own.HEAD_LR = 1e-3
    own.WISE = 1.0
    own.REFRESH = 0  # the text classifier's labels are never renewed
    own.PRIOR_TAU = 0.0
    for key in ("VISUAL", "VPT_TOKENS", "LORA_RANK", "ADAPTER_REDUCTION"):
        own[key] = cfg.TRAINER.COFT[key]
    own.DESCRIPTIONS = True  # train on the data set's descriptions beside its templates, if there are any
    own.TEXT_STEPS = 1000
    own.TEXT_LR = 1e-3
    own.TEXT_NOISE = 0.1  # standard deviation of what is added to each dimension of a text's features
    own.LABEL_SMOOTHING = 0.1


def train_text_classifier(texts: Sequence[Tensor], scale: float, own: Any, source: torch.Generator) -> Tensor:
    """Train a cosine classifier to tell whose class a text is of, from noisy text features.

    Args:
        texts: Unit-length text features of each class. Shape (n_c, embed_dim) each.
        scale: CLIP's logit scale.
        own: The keys TEXT_STEPS, TEXT_LR, TEXT_NOISE and LABEL_SMOOTHING.
        source: Source of the noise.

    Returns:
        Unit-length vectors, which start at the means of the classes' texts. Shape (C, embed_dim).
    """
    features = torch.cat(list(texts)).float().cpu()
    labels = torch.cat([torch.full((len(own_texts),), c) for c, own_texts in enumerate(texts)])
    weight = torch.stack([own_texts.mean(dim=0) for own_texts in texts]).float().cpu().requires_grad_(True)
    optimizer = torch.optim.AdamW([weight], lr=own.TEXT_LR)
    for _ in range(own.TEXT_STEPS):
        noise = torch.randn(features.shape, generator=source) * own.TEXT_NOISE
        logits = scale * F.normalize(features + noise, dim=-1) @ F.normalize(weight, dim=-1).t()
        loss = F.cross_entropy(logits, labels, label_smoothing=own.LABEL_SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return F.normalize(weight.detach(), dim=-1)


@TRAINER_REGISTRY.register()
class LaFTer(SelfTraining):
    """Self-training that starts from a text classifier, and in which a light visual module and the head train.

    The text classifier with the frozen image encoder labels all images, once; models are taught these labels on strong
    views.

    Unlike the published method: the text classifier is one of cosines, and starts from the mean of the texts; in the
    image encoder the light module of CoFT's Phase I trains (deep prompts in a ViT, norms and biases in a ResNet)
    instead of shallow prompts and norms; labels are not smoothed in self-training, but logits adjusted by class
    frequencies; a moving average of the weights is tested.
    """

    settings = "LAFTER"

    def check_cfg(self, cfg: Any) -> None:
        """Refuse counts below 1."""
        super().check_cfg(cfg)
        check_positive(cfg, "TRAINER.LAFTER.TEXT_STEPS")
        check_not_negative(cfg, *(f"TRAINER.LAFTER.{key}" for key in ("TEXT_LR", "TEXT_NOISE")))
        check_share(cfg, "TRAINER.LAFTER.LABEL_SMOOTHING")
        check_module(cfg, "TRAINER.LAFTER")

    def texts(self) -> list[Tensor]:
        """Features of what is said of each class: templates, and descriptions. Shape (n_c, embed_dim) each."""
        named = torch.stack([template_features(self.clip_model, self.classnames, t) for t in self.templates], dim=1)
        if not self.own.DESCRIPTIONS:
            return list(named)
        found = descriptions_of(self.dm.dataset, self.cfg.DATASET.NAME, self.templates[0])
        if found is None:
            return list(named)
        sentences = sentences_by_class(self.classnames, found)
        described = sentence_features(self.clip_model, self.classnames, self.templates[0], sentences)
        return [torch.cat(parts) for parts in zip(named, described, strict=True)]

    def first_head(self, name: str) -> Tensor:
        """A model's text classifier. Unit length, shape (C, embed_dim)."""
        scale, source = float(self.clip_model.logit_scale.exp()), generator(self.cfg.SEED, "texts", name)
        return train_text_classifier(self.texts(), scale, self.own, source).to(self.device)

    def first_encoder(self, name: str) -> nn.Module:
        """CLIP's image encoder with a light module."""
        source = generator(self.cfg.SEED, "light module", name)
        return light_module(self.clip_model.visual, source, self.own, "TRAINER.LAFTER")

    def build_peer(self, name: str) -> Peer:
        """Build a model, of whose encoder the light module alone trains."""
        peer = super().build_peer(name)
        light = {key for key, value in peer.encoder.named_parameters() if value.requires_grad}
        for key, value in peer.learner().encoder.named_parameters():
            value.requires_grad_(key in light)
        return peer
