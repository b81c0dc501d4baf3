"""Descriptions of a run's classes, as text features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coft.backbones.descriptions import (
    Descriptions,
    described_features,
    descriptions_of,
    load_descriptions,
    sentence_features,
    sentences_by_class,
    user_descriptions,
)
from coft.backbones.prompts import Synonyms, template_features


@dataclass(frozen=True)
class Sentences:
    """What sentences say of the classes.

    Attributes:
        clip_model: Encodes them.
        classnames: C names.
        synonyms: Other names of classes, by class name.
        templates: Words with one "{}" each.
        dataset: Name of the data set, which may have descriptions.
        descriptions: Sentences by class name that came with the images; None: those of the data set count.
    """

    clip_model: Any
    classnames: Sequence[str]
    synonyms: Synonyms
    templates: tuple[str, ...]
    dataset: str
    descriptions: Descriptions | None

    def of(self, source: str) -> Descriptions | None:
        """Descriptions from a source.

        Args:
            source: none; given: those in the user's file of classes, if any; auto: the data set's, if it has any; or a
                file.

        Raises:
            UserError: If the file of descriptions is none.
        """
        if source == "none":
            return None
        if source == "given":
            return user_descriptions(self, self.templates[0])
        if source == "auto":
            return descriptions_of(self, self.dataset, self.templates[0])
        return load_descriptions(Path(source))

    def describe(self, source: str) -> Callable[[float], Tensor] | None:
        """What makes text features, shape (C, embed_dim), with a share of descriptions; None without any."""
        descriptions = self.of(source)
        if descriptions is None:
            return None
        return lambda share: self.features(self.templates, descriptions, share)

    def features(self, templates: Sequence[str], descriptions: Descriptions, share: float) -> Tensor:
        """Text features of templates and descriptions. Unit length, shape (C, embed_dim)."""
        args = self.clip_model, self.classnames, templates, descriptions, share
        return described_features(*args, self.synonyms)

    def texts(self, with_descriptions: bool) -> list[Tensor]:
        """Features of what is said of each class: templates, and descriptions. Shape (n_c, embed_dim) each."""
        args = self.clip_model, self.classnames
        named = torch.stack([template_features(*args, t, self.synonyms) for t in self.templates], dim=1)
        descriptions = self.of("auto" if with_descriptions else "none")
        if descriptions is None:
            return list(named)
        sentences = sentences_by_class(self.classnames, descriptions)
        described = sentence_features(*args, self.templates[0], sentences)
        return [torch.cat(parts) for parts in zip(named, described, strict=True)]


def described_text(cfg: Any, sentences: Sentences, templates: Sequence[str]) -> Tensor | None:
    """Text features of templates and of the descriptions that DATASET.DESCRIPTIONS asks for.

    Returns:
        Unit-length features, shape (C, embed_dim); None where none are asked for, or the data set has none.

    Raises:
        UserError: If the file of descriptions is none, or lacks a class.
    """
    source = getattr(cfg.DATASET, "DESCRIPTIONS", "none")
    descriptions = sentences.of(source)
    if descriptions is None:
        return None
    return sentences.features(templates, descriptions, cfg.DATASET.DESCRIPTIONS_SHARE)
