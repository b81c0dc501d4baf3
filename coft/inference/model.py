"""A finished model as an object: it needs the backbone, and neither a config nor the data that it was trained on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from coft.core.finite import check_predictions
from coft.core.parallel import Parallel
from coft.core.precision import PRECISIONS, PREDICTIONS
from coft.images.reading import Decoding, decode_image, read_bytes
from coft.images.views import Inputs, plain_view
from coft.labelling.predictor import Predictor

ImageLike = str | os.PathLike[str] | Image.Image


@dataclass(frozen=True)
class Origin:
    """The backbone that a model was made from.

    Attributes:
        name: As `load_clip` knows it.
        fingerprint: As `coft.backbones.load.fingerprint` makes it.
        frozen_stages: How many of its first stages never trained.
    """

    name: str
    fingerprint: str
    frozen_stages: int = 0


@dataclass(frozen=True)
class Prediction:
    """What a model says of some images.

    Attributes:
        probabilities: Shape (n, C).
        p_clean: How likely each class would be right as a label, by the negative prompts. Shape (n, C), or None.
    """

    probabilities: Tensor
    p_clean: Tensor | None


@dataclass
class AdaptedModel:
    """A finished model: predicts the classes of images.

    Attributes:
        classes: C names.
        templates: Words with one "{}" each, that the names were put into.
        origin: The backbone.
        inputs: What it reads.
        decoding: How large images become when they are read.
        precision: Of the image encoders: a name of `PRECISIONS`.
        predictor: Encoders and vectors of the classes.
        clip_model: The frozen CLIP.
        about: Anything else that is known of it, as JSON can have it: trainer, settings, results.
    """

    classes: tuple[str, ...]
    templates: tuple[str, ...]
    origin: Origin
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

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.clip_model.logit_scale.device

    # ---------------------------------------------------------------- images

    def view(self, image: ImageLike) -> Tensor:
        """An image as the model sees it: upright, RGB, resized, cropped. Shape (3, size, size), uint8.

        Args:
            image: A file, or an image of Pillow's.

        Raises:
            UserError: If the file is no image that can be read.
        """
        if not isinstance(image, Image.Image):
            path = Path(image)
            image = decode_image(read_bytes(path), path, self.decoding)
        return self._view(image.convert("RGB"))

    def batch(self, views: Sequence[Tensor]) -> Tensor:
        """Views as numbers that the encoders read, on the model's device. Shape (n, 3, size, size)."""
        # By division, as Dassl's test does it: the last bit is another one than that of `views.normalize`.
        return self._normalize(torch.stack(list(views)).float().div_(255)).to(self.device)

    # ---------------------------------------------------------------- predictions

    @torch.no_grad()
    def features(self, images: Tensor) -> list[Tensor]:
        """Features by each encoder, unit length, fp32. Shape (n, embed_dim) each.

        Args:
            images: As of `batch`.
        """
        dtype = torch.bfloat16 if self.precision == PREDICTIONS else PRECISIONS[self.precision]
        encoders = {str(number): encoder for number, encoder in enumerate(self.predictor.encoders)}

        def encode(number: str) -> Tensor:
            return F.normalize(encoders[number](images).float(), dim=-1)

        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            return list(self._parallel.map_without_gradients(encode, list(encoders), self.device.type).values())

    @torch.no_grad()
    def log_probabilities(self, images: Tensor) -> Tensor:
        """What the method's own `predict` gives: logs of probabilities, or logits. Shape (n, C).

        Args:
            images: As of `batch`.
        """
        return self.predictor.log_probabilities(self.predictor.scores(self.features(images)))

    @torch.no_grad()
    def predict(self, images: Tensor) -> Prediction:
        """Probabilities of the classes, and p_clean where there is one.

        Args:
            images: As of `batch`.

        Raises:
            UserError: If they are no numbers.
        """
        scores = self.predictor.scores(self.features(images))
        probabilities = self.predictor.log_probabilities(scores).softmax(dim=1)
        check_predictions(probabilities)
        return Prediction(probabilities, self.predictor.p_clean(scores))

    def predict_proba(self, images: Sequence[ImageLike], batch_size: int = 64) -> Tensor:
        """Probabilities of the classes of files or images. Shape (n, C), on the CPU.

        Raises:
            UserError: If a file is no image that can be read.
        """
        parts = [torch.zeros(0, len(self.classes))]
        for start in range(0, len(images), batch_size):
            views = [self.view(image) for image in images[start : start + batch_size]]
            parts.append(self.predict(self.batch(views)).probabilities.cpu())
        return torch.cat(parts)
