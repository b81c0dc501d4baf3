"""Zero-shot CLIP's predictions for a run's images under edited class names. No label is needed."""

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

SHOWN = 8  # most images shown per class
CACHE_SIZE = 10_000  # size of the cache of text features

Names = tuple[str, ...]  # name of a class, then its synonyms


@dataclass(frozen=True)
class Effect:
    """Zero-shot CLIP's predictions for the images, given some classes.

    Attributes:
        shares: Share of the images that are predicted as each class, by label; they sum to 1 but for rounding.
        images: Evenly spaced images that are predicted as each class, as rows of the run's table of images.
    """

    shares: list[float]
    images: list[list[int]]


class ZeroShot:
    """Zero-shot CLIP on the images whose features a run has stored.

    A class whose name and synonyms are unchanged keeps the run's text features, which include its descriptions.

    Args:
        evidence: Facts that the run stored about its images.
        classes: Classes of the run.
        clip_model: The frozen CLIP.
        templates: Prompt templates with one "{}" each.
    """

    def __init__(self, evidence: Evidence, classes: Classes, clip_model: Any, templates: Sequence[str]) -> None:
        self.features = torch.from_numpy(evidence.features.astype(np.float32))
        self.sample, self.clip_model, self.templates = evidence.sample, clip_model, list(templates)
        text = torch.from_numpy(evidence.text.astype(np.float32))
        self.run_text = dict(zip(names_of(classes), text, strict=True))
        self.cache: dict[Names, Tensor] = {}
        self.lock = threading.Lock()  # one request at a time encodes text

    def effect(self, classes: Classes) -> Effect:
        """Classify the images with other classes.

        Args:
            classes: The classes.

        Raises:
            UserError: If a name is too long for the text encoder.
        """
        text = torch.stack(self._text(names_of(classes)))
        labels = torch.cat([(rows @ text.t()).argmax(dim=1) for rows in self.features.split(4096)]).numpy()
        shares = np.bincount(labels, minlength=len(text)) / max(1, len(labels))
        order = np.argsort(labels, kind="stable")
        bounds = np.searchsorted(labels[order], np.arange(len(text) + 1))
        groups = [order[bounds[label] : bounds[label + 1]] for label in range(len(text))]
        images = [self.sample[rows[evenly(len(rows), SHOWN)]].tolist() for rows in groups]
        return Effect(shares.round(6).tolist(), images)

    def _text(self, names: Sequence[Names]) -> list[Tensor]:
        with self.lock:
            uncached = [key for key in names if key not in self.run_text and key not in self.cache]
            if len(self.cache) + len(uncached) > CACHE_SIZE:
                self.cache.clear()
                uncached = [key for key in names if key not in self.run_text]
            if uncached:
                first_names = [key[0] for key in uncached]
                synonyms = {key[0]: key[1:] for key in uncached}
                rows = ensemble_features(self.clip_model, first_names, self.templates, synonyms).float().cpu()
                self.cache |= zip(uncached, rows, strict=True)
            return [self.run_text[key] if key in self.run_text else self.cache[key] for key in names]


def names_of(classes: Classes) -> list[Names]:
    """Return the name of each class with its synonyms, by label."""
    return [(name, *classes.synonyms.get(name, ())) for name in classes.names]
