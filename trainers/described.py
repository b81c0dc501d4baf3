"""Class descriptions of a trainer's data set, as text features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from coft.backbones.descriptions import (
    Descriptions,
    described_features,
    descriptions_of,
    given_descriptions,
    load_descriptions,
)


def descriptions_from(trainer: Any, source: str) -> Descriptions | None:
    """Descriptions of a trainer's classes.

    Args:
        trainer: Its data set is read.
        source: none; given: those in the user's file of classes, if any; auto: the data set's, if it has any; or a
            file.

    Raises:
        UserError: If the file of descriptions is none.
    """
    if source == "none":
        return None
    if source == "given":
        return given_descriptions(trainer.dm.dataset, trainer.templates[0])
    if source == "auto":
        return descriptions_of(trainer.dm.dataset, trainer.cfg.DATASET.NAME, trainer.templates[0])
    return load_descriptions(Path(source))


def described_text(trainer: Any, templates: Sequence[str]) -> Tensor | None:
    """Text features of templates and of the descriptions that DATASET.DESCRIPTIONS asks for.

    Returns:
        Unit-length features, shape (C, embed_dim); None where none are asked for, or the data set has none.

    Raises:
        UserError: If the file of descriptions is none, or lacks a class.
    """
    found = descriptions_from(trainer, trainer.cfg.DATASET.DESCRIPTIONS)
    if found is None:
        return None
    share = trainer.cfg.DATASET.DESCRIPTIONS_SHARE
    return described_features(trainer.clip_model, trainer.classnames, templates, found, share, trainer.synonyms)
