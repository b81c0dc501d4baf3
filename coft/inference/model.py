"""A finished model in memory. It needs the backbone, but neither the run's config nor its training data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from coft.backbones.frozen_bank import share_stages, through_stages
from coft.backbones.joint import members_of
from coft.backbones.load import fingerprint
from coft.backbones.members import member_names
from coft.core.finite import check_predictions
from coft.core.parallel import Parallel
from coft.core.precision import PRECISIONS
from coft.images.reading import Decoding, decode_image, read_bytes, rgb
from coft.images.views import Inputs, plain_view
from coft.labelling.predictor import Predictor

from .encoders import encode_images, origin_of, visual_at

ImageLike = str | os.PathLike[str] | Image.Image


@dataclass(frozen=True)
class BackboneRef:
    """A reference to the backbone that a model was made from.

    Attributes:
        name: Name or path of the backbone, as `load_clip` takes it.
        fingerprint: Checksum of its weights, computed by `coft.backbones.load.fingerprint`.
        frozen_stages: Number of its first stages that were not trained.
    """

    name: str
    fingerprint: str
    frozen_stages: int = 0


@dataclass(frozen=True)
class Prediction:
    """Predictions of a model for n images.

    Attributes:
        probabilities: Class probabilities. Shape (n, C).
        p_clean: Probability, according to the negative prompts, that each class is the right label. Shape (n, C); None
            if the model has no negative prompts.
    """

    probabilities: Tensor
    p_clean: Tensor | None


@dataclass
class AdaptedModel:
    """A finished model, which predicts the classes of images.

    Attributes:
        classes: C class names, by label.
        templates: Prompt templates with one "{}" each for the class name.
        backbone: Reference to the backbone that the model was made from.
        inputs: Size and normalization of the input images.
        decoding: Size to which image files are decoded.
        precision: Precision of the image encoders: a key of `PRECISIONS`.
        predictor: Image encoders and class vectors.
        clip_model: The frozen CLIP.
        about: JSON-compatible facts about the training: trainer, settings, results.
    """

    classes: tuple[str, ...]
    templates: tuple[str, ...]
    backbone: BackboneRef
    inputs: Inputs
    decoding: Decoding
    precision: str
    predictor: Predictor
    clip_model: Any
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        encoders = self.predictor.encoders
        self._view = plain_view(self.inputs)
        self._normalize = v2.Normalize(mean=list(self.inputs.mean), std=list(self.inputs.std))
        self._parallel = Parallel(len(encoders), encoders[0], self.device.type)
        # The shared stages run on small chunks. On a GPU one large batch per encoder is faster.
        self._shares_stages = self.device.type == "cpu" and share_stages(encoders)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.clip_model.logit_scale.device

    # ---------------------------------------------------------------- checkpoints

    @property
    def two_checkpoints(self) -> bool:
        """Whether the backbone joins two checkpoints, one for each peer."""
        return len(members_of(self.clip_model)) > 1

    def visual_of(self, encoder: nn.Module) -> nn.Module:
        """Return the backbone's image encoder that an encoder of this model was made from."""
        visual = self.clip_model.visual
        return visual_at(visual, origin_of(encoder, visual))

    def of_peer(self, peer: str) -> AdaptedModel:
        """Return the model of one peer ("a" or "b") on its own checkpoint; this model if there is one checkpoint."""
        if not self.two_checkpoints or len(self.predictor.classifiers) < 2 or peer not in ("a", "b"):
            return self
        name, classifier = list(self.predictor.classifiers.items())["ab".index(peer)]
        origin = origin_of(classifier.encoder, self.clip_model.visual)
        clip_model, member_name = members_of(self.clip_model)[origin], member_names(self.backbone.name)[origin]
        backbone = replace(self.backbone, name=member_name, fingerprint=fingerprint(clip_model))
        predictor = replace(self.predictor, classifiers={name: classifier})
        return replace(self, backbone=backbone, clip_model=clip_model, predictor=predictor)

    # ---------------------------------------------------------------- images

    def view(self, image: ImageLike) -> Tensor:
        """Preprocess an image: upright, RGB, resized, cropped.

        Args:
            image: Path of an image file, or a Pillow image.

        Returns:
            Shape (3, size, size), uint8.

        Raises:
            UserError: If the file cannot be read as an image.
        """
        if isinstance(image, Image.Image):
            return self._view(self.decoding.shrink(rgb(image)))
        path = Path(image)
        return self._view(decode_image(read_bytes(path), path, self.decoding))

    def batch(self, views: Sequence[Tensor]) -> Tensor:
        """Normalize views into the input of the encoders, on the model's device.

        Args:
            views: Preprocessed images, as `view` returns them. Shape (3, size, size), uint8, each.

        Returns:
            Shape (n, 3, size, size), fp32.
        """
        # Divide by 255 as Dassl's test transform does: `views.normalize` rounds differently in the last bit.
        return self._normalize(torch.stack(list(views)).float().div_(255)).to(self.device)

    # ---------------------------------------------------------------- predictions

    @torch.no_grad()
    def features(self, images: Tensor) -> list[Tensor]:
        """Compute the unit-length features of each encoder.

        Args:
            images: Normalized images, as `batch` returns them. Shape (n, 3, size, size).

        Returns:
            One tensor per encoder. Shape (n, embed_dim), fp32.
        """
        encoders, dtype = self.predictor.encoders, PRECISIONS[self.precision]
        if self._shares_stages:
            with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
                images = through_stages(encoders[0], images, self._parallel.map_without_gradients)
        return encode_images(encoders, images, self._parallel, dtype)

    @torch.no_grad()
    def log_probabilities(self, images: Tensor) -> Tensor:
        """Compute the class log-probabilities up to a constant per image, as the method itself predicts them.

        Args:
            images: Normalized images, as `batch` returns them. Shape (n, 3, size, size).

        Returns:
            Shape (n, C).
        """
        return self.predictor.log_probabilities(self.predictor.scores(self.features(images)))

    @torch.no_grad()
    def predict(self, images: Tensor) -> Prediction:
        """Compute class probabilities, and p_clean if the model has negative prompts.

        Args:
            images: Normalized images, as `batch` returns them. Shape (n, 3, size, size).

        Raises:
            UserError: If a probability is NaN.
        """
        scores = self.predictor.scores(self.features(images))
        probabilities = self.predictor.log_probabilities(scores).softmax(dim=1)
        check_predictions(probabilities, "copy the model again, or train again with PREC fp32")
        return Prediction(probabilities, self.predictor.p_clean(scores))
