"""A finished model as an object. It needs the backbone, but no config and none of the data that it was trained on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from coft.backbones.frozen_bank import share_stages, through_stages
from coft.backbones.joint import members_of
from coft.backbones.load import fingerprint
from coft.backbones.members import member_names
from coft.core.errors import UserError
from coft.core.finite import check_predictions
from coft.core.parallel import Parallel
from coft.core.precision import PRECISIONS
from coft.core.settings import shown
from coft.images.reading import Decoding, decode_image, read_bytes
from coft.images.views import Inputs, plain_view
from coft.labelling.predictor import Predictor

from .encoders import origin_of, visual_at

ImageLike = str | os.PathLike[str] | Image.Image


def whole_batch(size: Any) -> int:
    """A number of images that go through the encoders at a time, as a program gives it.

    Raises:
        UserError: If it is no whole number above 0.
    """
    if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
        raise UserError(f"batch_size is {shown(size)}; expected a whole number of at least 1")
    return int(size)


@dataclass(frozen=True)
class BackboneRef:
    """A reference to the backbone that a model was made from.

    Attributes:
        name: Name or path that `load_clip` takes.
        fingerprint: Checksum of its weights, computed by `coft.backbones.load.fingerprint`.
        frozen_stages: Number of its first stages that did not train.
    """

    name: str
    fingerprint: str
    frozen_stages: int = 0


@dataclass(frozen=True)
class Prediction:
    """The predictions of a model for n images.

    Attributes:
        probabilities: Probabilities of the classes. Shape (n, C).
        p_clean: Probability, by the negative prompts, that each class is right as a label. Shape (n, C); None if the
            model has no negative prompts.
    """

    probabilities: Tensor
    p_clean: Tensor | None


@dataclass
class AdaptedModel:
    """A finished model: it predicts the classes of images.

    Attributes:
        classes: C class names.
        templates: Prompt templates with one "{}" each for the class name.
        backbone: The backbone that it was made from.
        inputs: Size and normalization of its input.
        decoding: The size to which image files are decoded.
        precision: Precision of the image encoders: a key of `PRECISIONS`.
        predictor: The image encoders and the vectors of the classes.
        clip_model: The frozen CLIP.
        about: Facts about the training as JSON: trainer, settings, results.
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
        # On a GPU one large batch is faster than the small ones that the stages get.
        self._shares_stages = self.device.type == "cpu" and share_stages(encoders)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.clip_model.logit_scale.device

    # ---------------------------------------------------------------- checkpoints

    @property
    def two_checkpoints(self) -> bool:
        """Whether its peers are of two backbones."""
        return len(members_of(self.clip_model)) > 1

    def visual_of(self, encoder: nn.Module) -> nn.Module:
        """The image encoder of the backbone that an encoder of this model was made from."""
        visual = self.clip_model.visual
        return visual_at(visual, origin_of(encoder, visual))

    def alone(self, peer: str) -> AdaptedModel:
        """Of peers on two checkpoints one, "a" or "b", with its checkpoint; any other model itself."""
        if not self.two_checkpoints or len(self.predictor.classifiers) < 2 or peer not in ("a", "b"):
            return self
        name, classifier = list(self.predictor.classifiers.items())["ab".index(peer)]
        origin = origin_of(classifier.encoder, self.clip_model.visual)
        clip_model, name_alone = members_of(self.clip_model)[origin], member_names(self.backbone.name)[origin]
        backbone = replace(self.backbone, name=name_alone, fingerprint=fingerprint(clip_model))
        predictor = replace(self.predictor, classifiers={name: classifier})
        return replace(self, backbone=backbone, clip_model=clip_model, predictor=predictor)

    # ---------------------------------------------------------------- images

    def view(self, image: ImageLike) -> Tensor:
        """An image as the model sees it: upright, RGB, resized, cropped.

        Args:
            image: Path of an image file, or a Pillow image.

        Returns:
            Shape (3, size, size), uint8.

        Raises:
            UserError: If the file cannot be read as an image.
        """
        if not isinstance(image, Image.Image):
            path = Path(image)
            image = decode_image(read_bytes(path), path, self.decoding)
        return self._view(image.convert("RGB"))

    def batch(self, views: Sequence[Tensor]) -> Tensor:
        """Normalize views into the input of the encoders, on the model's device.

        Args:
            views: Views of images. Shape (3, size, size), uint8, each.

        Returns:
            Shape (n, 3, size, size), fp32.
        """
        # Dassl's test divides, too. `views.normalize` gives another last bit.
        return self._normalize(torch.stack(list(views)).float().div_(255)).to(self.device)

    # ---------------------------------------------------------------- predictions

    @torch.no_grad()
    def features(self, images: Tensor) -> list[Tensor]:
        """Unit-length features by each encoder.

        Args:
            images: Normalized images, as `batch` returns them. Shape (n, 3, size, size).

        Returns:
            For each encoder a tensor of shape (n, embed_dim), fp32.
        """
        dtype = PRECISIONS[self.precision]
        encoders = {str(number): encoder for number, encoder in enumerate(self.predictor.encoders)}

        def encode(number: str) -> Tensor:
            return F.normalize(encoders[number](images).float(), dim=-1)

        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            if self._shares_stages:
                images = through_stages(self.predictor.encoders[0], images, self._parallel.map_without_gradients)
            return list(self._parallel.map_without_gradients(encode, list(encoders), self.device.type).values())

    @torch.no_grad()
    def log_probabilities(self, images: Tensor) -> Tensor:
        """Log-probabilities of the classes up to a constant of each image, as the method itself predicts them.

        Args:
            images: Normalized images, as `batch` returns them. Shape (n, 3, size, size).

        Returns:
            Shape (n, C).
        """
        return self.predictor.log_probabilities(self.predictor.scores(self.features(images)))

    @torch.no_grad()
    def predict(self, images: Tensor) -> Prediction:
        """Probabilities of the classes, and p_clean if the model has negative prompts.

        Args:
            images: Normalized images, as `batch` returns them. Shape (n, 3, size, size).

        Raises:
            UserError: If a probability is not finite.
        """
        scores = self.predictor.scores(self.features(images))
        probabilities = self.predictor.log_probabilities(scores).softmax(dim=1)
        check_predictions(probabilities, "copy the model again, or train it anew with PREC fp32")
        return Prediction(probabilities, self.predictor.p_clean(scores))

    def predict_proba(self, images: Sequence[ImageLike], batch_size: int = 64) -> Tensor:
        """Probabilities of the classes of image files or Pillow images.

        Args:
            images: Paths of image files, or Pillow images.
            batch_size: Images that are encoded at a time.

        Returns:
            Shape (n, C), on the CPU.

        Raises:
            UserError: If a file cannot be read as an image.
        """
        parts, batch_size = [torch.zeros(0, len(self.classes))], whole_batch(batch_size)
        for start in range(0, len(images), batch_size):
            views = [self.view(image) for image in images[start : start + batch_size]]
            parts.append(self.predict(self.batch(views)).probabilities.cpu())
        return torch.cat(parts)
