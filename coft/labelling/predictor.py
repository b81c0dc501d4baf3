"""The predictor of a finished method: image encoders and class vectors, independent of how they were trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.core.table import Table

from .classifier import CLEAN_RULES, SCORES, Classifier, Scores
from .losses import log_mean


@dataclass(frozen=True)
class FinalClassifier:
    """An image encoder with class vectors that no longer train.

    Attributes:
        encoder: Image encoder, from images (n, 3, size, size) to features (n, embed_dim). Classifiers may share one.
        positive: Unit vectors t+ of the logits l+. Shape (C, embed_dim).
        clean: Vectors t+ - t- of the clean log-odds. Shape (C, embed_dim); None without a negative prompt.
        scale: CLIP's logit scale.
    """

    encoder: nn.Module
    positive: Tensor
    clean: Tensor | None
    scale: float

    def classify(self, features: Tensor) -> Scores:
        """Compute logits l+ and clean log-odds d of unit-length features; d is 0 without `clean`. Shape (n, C) each."""
        scaled = self.scale * features
        logits = scaled @ self.positive.t()
        return logits, torch.zeros_like(logits) if self.clean is None else scaled @ self.clean.t()

    def calibrated(self, of_logits: float, of_log_odds: float) -> FinalClassifier:
        """Return a copy whose logits and log-odds are divided by their temperatures."""
        clean = None if self.clean is None else self.clean * (of_logits / of_log_odds)
        return replace(self, clean=clean, scale=self.scale / of_logits)

    def logits(self, features: Table) -> Table:
        """Compute logits l+ of all images from their features (N, embed_dim). Shape (N, C)."""
        return linear(features, self.positive, self.scale)

    def log_odds(self, features: Table) -> Table:
        """Compute clean log-odds d of all images like `logits`; `clean` must not be None. Shape (N, C)."""
        assert self.clean is not None
        return linear(features, self.clean, self.scale)


def linear(features: Table, vectors: Tensor, scale: float) -> Table:
    """Compute scaled products of image features and class vectors, on the device of the vectors.

    Args:
        features: Features of all images. Shape (N, embed_dim).
        vectors: Class vectors. Shape (C, embed_dim).
        scale: CLIP's logit scale.

    Returns:
        Products. Shape (N, C), on the CPU.
    """
    device = vectors.device
    return features.map(lambda rows: (scale * rows.to(device) @ vectors.t()).cpu())


@dataclass(frozen=True)
class Predictor:
    """Ensemble of classifiers whose probabilities are averaged.

    Attributes:
        classifiers: Classifiers by name.
        score: Score whose softmax is averaged: a key of `SCORES`.
        clean_rule: Rule from d to p_clean: a key of `CLEAN_RULES`, or "" if there is no p_clean.
        temperature: Divisor of the log of the mean probabilities.
    """

    classifiers: Mapping[str, FinalClassifier]
    score: str = "positive"
    clean_rule: str = ""
    temperature: float = 1.0

    @property
    def encoders(self) -> list[nn.Module]:
        """Distinct encoders, in the order of the classifiers."""
        return list({id(part.encoder): part.encoder for part in self.classifiers.values()}.values())

    def numbers(self) -> list[int]:
        """Return the index in `encoders` of each classifier's encoder."""
        places = {id(encoder): place for place, encoder in enumerate(self.encoders)}
        return [places[id(part.encoder)] for part in self.classifiers.values()]

    def scores(self, features: Sequence[Tensor]) -> dict[str, Scores]:
        """Compute logits l+ and clean log-odds d of each classifier. Shape (n, C) each.

        Args:
            features: Unit-length features from each of `encoders`. Shape (n, embed_dim) each.
        """
        pairs = zip(self.classifiers.items(), self.numbers(), strict=True)
        return {name: part.classify(features[number]) for (name, part), number in pairs}

    def log_probabilities(self, scores: Mapping[str, Scores]) -> Tensor:
        """Compute `log_mean` of the probabilities; for a single classifier, its score unchanged. Shape (n, C)."""
        if len(scores) == 1:
            return SCORES[self.score](*next(iter(scores.values()))).float()
        return self.log_mean(self.probabilities(scores))

    def log_mean(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """Compute the log of the classifiers' mean probabilities / temperature, up to a constant. Shape (n, C)."""
        return log_mean(probabilities) / self.temperature

    def probabilities(self, scores: Mapping[str, Scores]) -> dict[str, Tensor]:
        """Compute the probabilities of each classifier. Shape (n, C) each."""
        return {name: SCORES[self.score](*pair).float().softmax(dim=1) for name, pair in scores.items()}

    def p_clean(self, scores: Mapping[str, Scores]) -> Tensor | None:
        """Compute p_clean of each class, averaged over classifiers. Shape (n, C); None without a rule."""
        if not self.clean_rule:
            return None
        return torch.stack([CLEAN_RULES[self.clean_rule](odds.float()) for _, odds in scores.values()]).mean(dim=0)


def zero_shot(encoder: nn.Module, text: Tensor, scale: float) -> Predictor:
    """Return the predictor of zero-shot CLIP.

    Args:
        encoder: Image encoder, from images (n, 3, size, size) to features (n, embed_dim).
        text: Unit-length text features of the classes. Shape (C, embed_dim).
        scale: CLIP's logit scale.
    """
    return Predictor({"zero_shot": FinalClassifier(encoder, text, None, scale)})


@torch.no_grad()
def final_classifier(model: Classifier) -> FinalClassifier:
    """Convert a classifier to one that no longer trains."""
    positive = F.normalize(model.positive, dim=-1)
    clean = None if model.negative is None else positive - F.normalize(model.negative, dim=-1)
    return FinalClassifier(model.encoder, positive, clean, model.scale)
