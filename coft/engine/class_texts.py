"""Text features of the class descriptions of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from coft.backbones.prompts import template_features

if TYPE_CHECKING:
    from .session import Task

SOURCES = ("none", "given", "auto")  # of descriptions; any other is the path of a file


class ClassTexts:
    """Descriptions of the classes of a run, and their text features.

    Args:
        clip_model: CLIP that encodes the texts.
        task: Inputs of the run.
    """

    def __init__(self, clip_model: Any, task: Task) -> None:
        self.clip_model, self.task = clip_model, task
        self.classnames, self.synonyms = task.classes.names, task.classes.synonyms

    def of(self, source: str) -> Descriptions | None:
        """Load descriptions from a source.

        Args:
            source: "none"; "given": the user's, if any; "auto": the user's, or, if they are None, the data
                set's, if any; or the path of a file.

        Raises:
            UserError: If the file has no valid descriptions, or CLIP cannot read a sentence of the user.
        """
        if source == "none":
            return None
        arguments = self.task.descriptions, self.classnames, self.task.templates[0]
        if source == "given":
            return user_descriptions(*arguments)
        return descriptions_of(self.task.dataset, *arguments) if source == "auto" else load_descriptions(Path(source))

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
        args = self.clip_model, self.classnames, templates or self.task.templates, descriptions
        return lambda share: described_features(*args, share, self.synonyms)

    def texts(self, with_descriptions: bool) -> list[Tensor]:
        """Return the features of all texts of each class: templates, then descriptions. Shape (n_c, embed_dim) each."""
        args = self.clip_model, self.classnames
        named = torch.stack([template_features(*args, t, self.synonyms) for t in self.task.templates], dim=1)
        descriptions = self.of("auto" if with_descriptions else "none")
        if descriptions is None:
            return list(named)
        sentences = sentences_by_class(self.classnames, descriptions)
        described = sentence_features(*args, self.task.templates[0], sentences)
        return [torch.cat(parts) for parts in zip(named, described, strict=True)]
