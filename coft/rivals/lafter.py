"""LaFTer (Mirza et al. 2023): self-training with labels of a classifier trained on texts (our reconstruction)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.core.seeding import generator
from coft.core.settings import setting, share
from coft.labelling.pseudo_labels import PseudoLabels
from coft.labelling.student import Student

from .full_tuning import FullTuning
from .self_training import LabellingSettings


@dataclass(frozen=True)
class LaFTerSettings(LabellingSettings):
    """Settings of LaFTer."""

    lr: float = setting(1e-3, "learning rate of the light visual module and the head", at_least=0.0)
    wise: float = share(1.0, "share of the fine-tuned weights in the evaluated weights (WiSE-FT)")
    refresh: int = setting(0, "epochs between two labellings of all images; 0: once, before the first", at_least=0)
    prior_tau: float = setting(
        0.0, "strength of the prior correction, which favours rarely predicted classes", at_least=0.0, at_most=10.0
    )
    visual: str = setting("auto", "light visual module; auto: vpt-deep for a ViT, else norms-and-biases")
    descriptions: bool = setting(True, "train on the data set's descriptions beside its templates, if there are any")
    text_steps: int = setting(1000, "steps of the text classifier", at_least=1)
    text_lr: float = setting(1e-3, "learning rate of the text classifier", at_least=0.0, at_most=1e3)
    text_noise: float = setting(
        0.1, "standard deviation of the noise on each dimension of a text", at_least=0.0, at_most=1e3
    )
    label_smoothing: float = share(0.1, "label smoothing of the text classifier")


def train_text_classifier(
    texts: Sequence[Tensor], scale: float, settings: LaFTerSettings, source: torch.Generator
) -> Tensor:
    """Train a cosine classifier to predict the class of a text from its noisy text features.

    Args:
        texts: Unit-length text features of each class. Shape (n_c, embed_dim) each.
        scale: CLIP's logit scale.
        settings: Settings, of which those of the text classifier are used.
        source: Generator of the noise.

    Returns:
        Unit-length class vectors, trained from the mean text features of the classes. Shape (C, embed_dim).
    """
    features = torch.cat(list(texts)).float().cpu()
    labels = torch.cat([torch.full((len(each),), c) for c, each in enumerate(texts)])
    weight = torch.stack([each.mean(dim=0) for each in texts]).float().cpu().requires_grad_(True)
    optimizer = torch.optim.AdamW([weight], lr=settings.text_lr)
    for _ in range(settings.text_steps):
        noise = torch.randn(features.shape, generator=source) * settings.text_noise
        logits = scale * F.normalize(features + noise, dim=-1) @ F.normalize(weight, dim=-1).t()
        loss = F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return F.normalize(weight.detach(), dim=-1)


class LaFTer(FullTuning):
    """Self-training that starts from a text classifier and trains a light visual module and the head.

    The text classifier with the frozen image encoder labels all images, once. Models are trained on these labels with
    strong views.

    Unlike the published method: the text classifier is a cosine classifier and starts from the mean of the texts; in
    the image encoder, the light module of CoFT's Phase I trains (deep prompts in a ViT, norms and biases in a ResNet)
    instead of shallow prompts and norms; in self-training, labels are not smoothed, but logits are adjusted by class
    frequencies; a moving average of the weights is tested; light module and head have the same learning rate.

    Args:
        texts: Function that returns unit-length text features of each class. Shape (n_c, embed_dim) each.
        *args: Arguments of `FullTuning`.
    """

    random_key = "LAFTER"
    head_rate = 1.0

    def __init__(self, texts: Callable[[], Sequence[Tensor]], *args: Any) -> None:
        self.texts = texts
        super().__init__(*args)

    def label(self) -> Mapping[str, PseudoLabels]:
        """Return the models' labels: at first, those of the text classifiers with the frozen image encoder."""
        if self.epoch:
            return self.own_labels(self.settings.prior_tau)
        return self.labels_by(dict.fromkeys(self.models, self.engine.clip_features(1)), self.settings.prior_tau)

    def first_head(self, name: str) -> Tensor:
        """Train a model's text classifier. Unit length, shape (C, embed_dim)."""
        source = generator(self.engine.seed, "texts", name)
        head = train_text_classifier(self.texts(), self.engine.clip.scale, self.settings, source)
        return head.to(self.engine.device)

    def first_encoder(self, name: str) -> nn.Module:
        """Build CLIP's image encoder with a light module."""
        source = generator(self.engine.seed, "light module", name)
        return self.engine.clip.light_module(self.settings.visual, source)

    def make_student(self, name: str) -> Student:
        """Build a model in whose encoder only the light module trains."""
        student = super().make_student(name)
        light = {key for key, value in self.starts[name].encoder.named_parameters() if value.requires_grad}
        for key, value in student.model.encoder.named_parameters():
            value.requires_grad_(key in light)
        return student
