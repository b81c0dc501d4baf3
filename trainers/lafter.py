"""LaFTer as a Dassl trainer."""

from __future__ import annotations

import torch
from torch import Tensor

from coft.backbones.descriptions import sentence_features, sentences_by_class
from coft.backbones.prompts import template_features
from coft.engine.run_log import SeedReport
from coft.rivals.lafter import LaFTer as LaFTerMethod
from coft.rivals.lafter import LaFTerSettings
from dassl.engine import TRAINER_REGISTRY

from .base import MethodTrainer
from .described import descriptions_from


@TRAINER_REGISTRY.register()
class LaFTer(MethodTrainer):
    """A classifier of texts labels the images that tune it; see `coft.rivals.lafter.LaFTer`."""

    section = "LAFTER"
    settings_class = LaFTerSettings
    label_free = True

    def make_method(self) -> LaFTerMethod:
        """Build LaFTer."""
        observer = SeedReport(self.diagnostics)
        return LaFTerMethod(self.texts, self.images, self.make_backbone(), self.own, self.runtime, observer)

    def texts(self) -> list[Tensor]:
        """Features of what is said of each class: templates, and descriptions. Shape (n_c, embed_dim) each."""
        args = self.clip_model, self.classnames
        named = torch.stack([template_features(*args, t, self.synonyms) for t in self.templates], dim=1)
        found = descriptions_from(self, "auto" if self.own.descriptions else "none")
        if found is None:
            return list(named)
        sentences = sentences_by_class(self.classnames, found)
        described = sentence_features(*args, self.templates[0], sentences)
        return [torch.cat(parts) for parts in zip(named, described, strict=True)]
