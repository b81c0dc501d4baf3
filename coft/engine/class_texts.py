"""Text features of the class descriptions of a run."""

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
class ClassTexts:
    """Descriptions of the classes, and their text features.

    Attributes:
        clip_model: CLIP that encodes the texts.
        classnames: C class names.
        synonyms: Synonyms by class name.
        templates: Prompt templates with one "{}" each.
        dataset: Name of the data set, for which the project may have descriptions.
        descriptions: User's sentences by class name; None: those of the data set are used.
    """

    clip_model: Any
    classnames: Sequence[str]
    synonyms: Synonyms
    templates: tuple[str, ...]
    dataset: str
    descriptions: Descriptions | None

    def of(self, source: str) -> Descriptions | None:
        """Load descriptions from a source.

        Args:
            source: "none"; "given": the user's, if any; "auto": the user's, or, if `descriptions` is None, the data
                set's, if any; or the path of a file.

        Raises:
            UserError: If the file has no valid descriptions, or CLIP cannot read a sentence of the user.
        """
        if source == "none":
            return None
        arguments = self.descriptions, self.classnames, self.templates[0]
        if source == "given":
            return user_descriptions(*arguments)
        return descriptions_of(self.dataset, *arguments) if source == "auto" else load_descriptions(Path(source))

    def describe(self, source: str, templates: Sequence[str] | None = None) -> Callable[[float], Tensor] | None:
        """Return a function from the share of descriptions to text features of unit length, shape (C, embed_dim).

        Args:
            source: Source of the descriptions, see `of`.
            templates: Prompt templates; by default those of the run.

        Returns:
            The function; None if there are no descriptions.
        """
        descriptions = self.of(source)
        if descriptions is None:
            return None
        args = self.clip_model, self.classnames, templates or self.templates, descriptions
        return lambda share: described_features(*args, share, self.synonyms)

    def texts(self, with_descriptions: bool) -> list[Tensor]:
        """Return the features of all texts of each class: templates, then descriptions. Shape (n_c, embed_dim) each."""
        args = self.clip_model, self.classnames
        named = torch.stack([template_features(*args, t, self.synonyms) for t in self.templates], dim=1)
        descriptions = self.of("auto" if with_descriptions else "none")
        if descriptions is None:
            return list(named)
        sentences = sentences_by_class(self.classnames, descriptions)
        described = sentence_features(*args, self.templates[0], sentences)
        return [torch.cat(parts) for parts in zip(named, described, strict=True)]
