"""What a finished method predicts with, as plain parts: image encoders, and vectors of the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.core.table import Table

from .classifier import CLEAN_RULES, SCORES, Classifier, Scores
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

    def classify(self, features: Tensor) -> Scores:
        """Logits l+ and clean log-odds d of unit-length features; d is 0 without `clean`. Shape (n, C) each."""
        scaled = self.scale * features
        logits = scaled @ self.positive.t()
        return logits, torch.zeros_like(logits) if self.clean is None else scaled @ self.clean.t()

    def calibrated(self, of_logits: float, of_log_odds: float) -> FinalClassifier:
        """One whose logits and log-odds are divided by temperatures."""
        clean = None if self.clean is None else self.clean * (of_logits / of_log_odds)
        return replace(self, clean=clean, scale=self.scale / of_logits)

    def logits(self, features: Table) -> Table:
        """Logits l+ of all images, from features (N, embed_dim). Shape (N, C)."""
        return linear(features, self.positive, self.scale)

    def log_odds(self, features: Table) -> Table:
        """Clean log-odds d of all images, by a classifier with `clean`; see `logits`. Shape (N, C)."""
        assert self.clean is not None
        return linear(features, self.clean, self.scale)


def linear(features: Table, vectors: Tensor, scale: float) -> Table:
    """Scaled products of all images' features and some vectors, worked out where the vectors are.

    Args:
        features: Shape (N, embed_dim).
        vectors: Shape (C, embed_dim).
        scale: CLIP's logit scale.

    Returns:
        Shape (N, C), on the CPU.
    """
    device = vectors.device
    return features.map(lambda rows: (scale * rows.to(device) @ vectors.t()).cpu())


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
        return list({id(part.encoder): part.encoder for part in self.classifiers.values()}.values())

    def numbers(self) -> list[int]:
        """Place in `encoders` of each classifier's encoder."""
        places = {id(encoder): place for place, encoder in enumerate(self.encoders)}
        return [places[id(part.encoder)] for part in self.classifiers.values()]

    def scores(self, features: Sequence[Tensor]) -> dict[str, Scores]:
        """Logits l+ and clean log-odds d by each classifier. Shape (n, C) each.

        Args:
            features: By each encoder, unit length. Shape (n, embed_dim) each.
        """
        pairs = zip(self.classifiers.items(), self.numbers(), strict=True)
        return {name: part.classify(features[number]) for (name, part), number in pairs}

    def log_probabilities(self, scores: Mapping[str, Scores]) -> Tensor:
        """Log of the mean of the classifiers' probabilities; of a single one its logits. Shape (n, C)."""
        return average_predictions([SCORES[self.score](*pair).float() for pair in scores.values()])

    def probabilities(self, scores: Mapping[str, Scores]) -> dict[str, Tensor]:
        """Probabilities by each classifier. Shape (n, C) each."""
        return {name: SCORES[self.score](*pair).float().softmax(dim=1) for name, pair in scores.items()}

    def p_clean(self, scores: Mapping[str, Scores]) -> Tensor | None:
        """How likely each class would be right as a label, mean over classifiers. Shape (n, C); None without a rule."""
        if not self.clean_rule:
            return None
        return torch.stack([CLEAN_RULES[self.clean_rule](odds.float()) for _, odds in scores.values()]).mean(dim=0)


def zero_shot(encoder: nn.Module, text: Tensor, scale: float) -> Predictor:
    """Zero-shot CLIP.

    Args:
        encoder: Images (n, 3, size, size) to features (n, embed_dim).
        text: Unit-length text features of the classes. Shape (C, embed_dim).
        scale: CLIP's logit scale.
    """
    return Predictor({"zero_shot": FinalClassifier(encoder, text, None, scale)})


@torch.no_grad()
def finished(model: Classifier) -> FinalClassifier:
    """A classifier that no longer trains."""
    positive = F.normalize(model.positive, dim=-1)
    clean = None if model.negative is None else positive - F.normalize(model.negative, dim=-1)
    return FinalClassifier(model.encoder, positive, clean, model.scale)
