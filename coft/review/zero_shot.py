"""What other names would make of zero-shot CLIP: the share of the images that each class takes. No label is needed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coft.backbones.prompts import ensemble_features
from coft.engine.class_names import Classes
from coft.report.image_facts import Evidence, evenly

SHOWN = 8  # pictures of what a class takes
REMEMBERED = 10_000  # text features, at most

Names = tuple[str, ...]  # of a class, synonyms included


@dataclass(frozen=True)
class Effect:
    """What zero-shot CLIP makes of some classes.

    Attributes:
        shares: Of the images, by class; of sum 1.
        images: Some that it takes, by class, as places in the run's table of images.
    """

    shares: list[float]
    images: list[list[int]]


class ZeroShot:
    """Zero-shot CLIP on the images whose features a run has kept.

    Text features of classes that stay as they are are the run's own, descriptions included.

    Args:
        evidence: What the run has kept.
        classes: Its classes.
        clip_model: The frozen CLIP.
        templates: Words with one "{}" each.
    """

    def __init__(self, evidence: Evidence, classes: Classes, clip_model: Any, templates: Sequence[str]) -> None:
        self.features = torch.from_numpy(evidence.features.astype(np.float32))
        self.sample, self.clip_model, self.templates = evidence.sample, clip_model, list(templates)
        text = torch.from_numpy(evidence.text.astype(np.float32))
        self.own = dict(zip(names_of(classes), text, strict=True))
        self.known: dict[Names, Tensor] = {}
        self.lock = threading.Lock()  # the text tower is for one at a time

    def effect(self, classes: Classes) -> Effect:
        """What zero-shot CLIP would make of classes.

        Raises:
            UserError: If a name is longer than the text encoder reads.
        """
        text = torch.stack(self._text(names_of(classes)))
        taken = torch.cat([(rows @ text.t()).argmax(dim=1) for rows in self.features.split(4096)]).numpy()
        shares = np.bincount(taken, minlength=len(text)) / max(1, len(taken))
        order = np.argsort(taken, kind="stable")
        bounds = np.searchsorted(taken[order], np.arange(len(text) + 1))
        groups = [order[bounds[label] : bounds[label + 1]] for label in range(len(text))]
        images = [self.sample[rows[evenly(len(rows), SHOWN)]].tolist() for rows in groups]
        return Effect(shares.round(6).tolist(), images)

    def _text(self, names: Sequence[Names]) -> list[Tensor]:
        with self.lock:
            new = [own for own in names if own not in self.own and own not in self.known]
            if len(self.known) + len(new) > REMEMBERED:
                self.known.clear()
                new = [own for own in names if own not in self.own]
            if new:
                firsts, synonyms = [own[0] for own in new], {own[0]: own[1:] for own in new}
                rows = ensemble_features(self.clip_model, firsts, self.templates, synonyms).float().cpu()
                self.known |= zip(new, rows, strict=True)
            return [self.own[own] if own in self.own else self.known[own] for own in names]


def names_of(classes: Classes) -> list[Names]:
    """All names of each class."""
    return [(name, *classes.synonyms.get(name, ())) for name in classes.names]
