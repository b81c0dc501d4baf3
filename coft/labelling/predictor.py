"""What a finished method predicts with, as plain parts: image encoders, and vectors of the classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.method.labeller import SCORES, Scores
from coft.method.negative_prompt import p_clean

from .classifier import Classifier
from .losses import average_predictions


@dataclass(frozen=True)
class FinalClassifier:
    """An image encoder with vectors of the classes, which no longer train.

    Attributes:
        encoder: Images (n, 3, size, size) to features (n, embed_dim). Several classifiers may share one.
        positive: Unit vectors of the logits l+. Shape (C, embed_dim).
        clean: Vectors of the clean log-odds, t+ - t-. Shape (C, embed_dim); None where there is no negative prompt.
        scale: CLIP's logit scale.
    """

    encoder: nn.Module
    positive: Tensor
    clean: Tensor | None
    scale: float

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Softmax of the logits l+ of images. Shape (n, C)."""
        return self.classify(F.normalize(self.encoder(images).float(), dim=-1))[0].softmax(dim=1)

    def classify(self, features: Tensor) -> Scores:
        """Logits l+ and clean log-odds d of unit-length features; d is 0 without `clean`. Shape (n, C) each."""
        scaled = self.scale * features
        logits = scaled @ self.positive.t()
        return logits, torch.zeros_like(logits) if self.clean is None else scaled @ self.clean.t()


@dataclass(frozen=True)
class Predictor:
    """Classifiers whose probabilities are averaged.

    Attributes:
        classifiers: By name.
        score: Whose softmax is averaged: a name of `SCORES`.
        clean_rule: How d becomes p_clean: a name of `CLEAN_RULES`; "" where there is none.
    """

    classifiers: Mapping[str, FinalClassifier]
    score: str = "positive"
    clean_rule: str = ""

    @property
    def encoders(self) -> list[nn.Module]:
        """Each encoder once, in the order of the classifiers."""
        return list({id(own.encoder): own.encoder for own in self.classifiers.values()}.values())

    def numbers(self) -> list[int]:
        """Place in `encoders` of each classifier's encoder."""
        places = {id(encoder): place for place, encoder in enumerate(self.encoders)}
        return [places[id(own.encoder)] for own in self.classifiers.values()]

    def scores(self, features: list[Tensor]) -> dict[str, Scores]:
        """Logits l+ and clean log-odds d by each classifier. Shape (n, C) each.

        Args:
            features: By each encoder, unit length. Shape (n, embed_dim) each.
        """
        pairs = zip(self.classifiers.items(), self.numbers(), strict=True)
        return {name: own.classify(features[number]) for (name, own), number in pairs}

    def log_probabilities(self, scores: Mapping[str, Scores]) -> Tensor:
        """Log of the mean of the classifiers' probabilities; of a single one its logits. Shape (n, C)."""
        return average_predictions([SCORES[self.score](*own).float() for own in scores.values()])

    def p_clean(self, scores: Mapping[str, Scores]) -> Tensor | None:
        """How likely each class would be right as a label, mean over classifiers. Shape (n, C); None without a rule."""
        if not self.clean_rule:
            return None
        return torch.stack([p_clean(odds.float(), self.clean_rule) for _, odds in scores.values()]).mean(dim=0)


@torch.no_grad()
def finished(model: Classifier, with_clean: bool = True) -> FinalClassifier:
    """A classifier that no longer trains.

    Args:
        model: The classifier.
        with_clean: Whether its negative vectors were trained.
    """
    positive, negative = F.normalize(model.positive, dim=-1), F.normalize(model.negative, dim=-1)
    return FinalClassifier(model.encoder, model.named_by, positive - negative if with_clean else None, model.scale)
