"""New labels for the images of a batch, from a model's text vectors and image prototypes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.core.schemas import SchemaError
from coft.core.table import Table

from .classifier import Classifier
from .predictor import FinalClassifier
from .prior import prior_offset
from .prototypes import image_prototypes, probability_by_image


@dataclass(frozen=True)
class BatchLabeller:
    """What a model needs from the last labelling of all images, to label those of a batch anew.

    Attributes:
        label: The model's labels of all images. Shape (N,).
        offset: Prior correction of the logits. Shape (C,).
        prototypes: Image prototypes of unit length. A class without images has its text vector, moved from the mean of
            the texts to that of the images, which are far apart in CLIP. Shape (C, embed_dim).
    """

    label: Tensor
    offset: Tensor
    prototypes: Tensor

    @classmethod
    def of_pool(cls, label: Tensor, features: Table, model: FinalClassifier, tau: float) -> BatchLabeller:
        """Build the labeller of a model from its labels and features of all images.

        Args:
            label: The model's labels. Shape (N,).
            features: Its image features. Shape (N, embed_dim).
            model: The model.
            tau: Strength of the prior correction.
        """
        texts = model.positive.cpu()
        offset = prior_offset(model.logits(features), tau).to(texts)
        moved = F.normalize(texts - texts.mean(dim=0) + features.mean(), dim=1)
        return cls(label, offset, image_prototypes(features, label, moved))

    def check(self, images: int, classes: int) -> None:
        """Check that the tensors fit a pool of `images` images and `classes` classes.

        Raises:
            SchemaError: If they do not.
        """
        shapes = [tuple(numbers.shape[:1]) for numbers in (self.label, self.offset, self.prototypes)]
        finite = self.offset.isfinite().all() and self.prototypes.isfinite().all()
        if shapes != [(images,), (classes,), (classes,)] or self.prototypes.dim() != 2 or not finite:
            raise SchemaError(f"do not fit {images} images and {classes} classes", "labellers of batches")

    @torch.no_grad()
    def label_views(self, model: Classifier, views: Tensor) -> Tensor:
        """Label a view of each image of a batch: the likeliest class by text, with the prior corrected, and by image.

        Args:
            model: The model.
            views: Views. Shape (n, 3, size, size).

        Returns:
            Labels. Shape (n,).
        """
        features = model.features(views)
        offset, prototypes = (numbers.to(features.device) for numbers in (self.offset, self.prototypes))
        by_text = (model.classify(features)[0] - offset).softmax(dim=1)
        return (by_text + probability_by_image(features, prototypes, model.scale)).argmax(dim=1)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors by name."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> BatchLabeller:
        """Build a labeller from the result of `state_dict`."""
        return cls(**state)
