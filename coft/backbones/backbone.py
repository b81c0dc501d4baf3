"""CLIP with the class names and templates of a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from coft.core.paths import cache_folder
from coft.images.batches import UnlabeledImages

from .feature_cache import cached
from .joint import members_of
from .load import fingerprint
from .prompts import NO_SYNONYMS, DualPrompts, Synonyms, ensemble_features, template_features
from .tower import width_of
from .visual_tuning import light_module

FEATURE_CACHE: Path | None = cache_folder() / "features"


class ClassBackbone:
    """Frozen CLIP with class names and templates.

    Args:
        clip_model: A CLIP of any family that `load_clip` reads, on its device.
        classnames: C class names.
        templates: Prompt templates with one "{}" each.
        identity: Properties that a checkpoint must share with this run to be loaded, by name.
        described: Function from templates to text features that include class descriptions: unit length, shape
            (C, embed_dim). It returns None if there are no descriptions.
        precision: Precision of the image features, a name of `coft.core.precision.PRECISIONS`.
        synonyms: Other names of classes, by class name. Text features of a class are means over its names.
    """

    def __init__(
        self,
        clip_model: Any,
        classnames: Sequence[str],
        templates: Sequence[str],
        identity: Mapping[str, str],
        described: Callable[[Sequence[str]], Tensor | None] = lambda templates: None,
        precision: str = "fp32",
        synonyms: Synonyms = NO_SYNONYMS,
    ) -> None:
        self.clip_model, self.classnames, self.templates = clip_model, list(classnames), list(templates)
        self.identity, self.described = dict(identity), described
        self.visual: nn.Module = clip_model.visual
        self.precision, self.synonyms = precision, dict(synonyms)

    def member(self, number: int) -> ClassBackbone:
        """Return the backbone that a model trains: this one, or one of two CLIPs in turn.

        Args:
            number: Number of the model, from 0. Even numbers get the first of two CLIPs, odd numbers the second.
        """
        members = members_of(self.clip_model)
        if len(members) == 1:
            return self
        args = members[number % len(members)], self.classnames, self.templates, self.identity
        return ClassBackbone(*args, precision=self.precision, synonyms=self.synonyms)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.clip_model.logit_scale.device

    @property
    def scale(self) -> float:
        """Logit scale."""
        return float(self.clip_model.logit_scale.exp())

    def zero_shot_text(self, num_templates: int | None = None) -> Tensor:
        """Compute the text features of the zero-shot classifier. Unit length, shape (C, embed_dim).

        Args:
            num_templates: Number of templates to average, from the first one on. None averages all.
        """
        chosen = self.templates[:num_templates]
        described = self.described(chosen)
        if described is not None:
            return described
        return ensemble_features(self.clip_model, self.classnames, chosen, self.synonyms)

    def first_template_text(self) -> Tensor:
        """Compute text features of the first template, and of descriptions if there are any. Shape (C, embed_dim)."""
        described = self.described(self.templates[:1])
        if described is not None:
            return described
        return template_features(self.clip_model, self.classnames, self.templates[0], self.synonyms)

    def prompts(self, number: int, num_ctx: int, source: torch.Generator) -> nn.Module:
        """Create the positive and negative prompts of a model. Models take the templates in turn.

        Args:
            number: Number of the model, which selects the template.
            num_ctx: Number of random context tokens; 0 starts from the words of the template.
            source: Random generator.
        """
        template = self.templates[number % len(self.templates)]
        options: dict[str, Any] = {"num_ctx": num_ctx, "generator": source, "synonyms": self.synonyms}
        return DualPrompts(self.clip_model, self.classnames, template, **options).to(self.device)

    def light_module(self, name: str, source: torch.Generator) -> nn.Module:
        """Return the image encoder with a trainable light module: a name of `VISUAL_MODULES`, or "auto"."""
        return light_module(self.visual, name, source)

    def encode(self, images: Tensor) -> Tensor:
        """Encode images with the frozen CLIP, in the precision of the active autocast.

        Args:
            images: Images on the device of the weights. Shape (n, 3, size, size).

        Returns:
            Unit-length features in fp32. Shape (n, embed_dim).
        """
        return F.normalize(self.visual(images).float(), dim=-1)

    def cached_features(
        self, images: UnlabeledImages, num_views: int, key: Sequence[int | str], compute: Callable[[], Tensor]
    ) -> Tensor:
        """Return the frozen CLIP's features of all images, averaged over views. They are cached on disk between runs.

        Args:
            images: The unlabeled images.
            num_views: Number of views per image.
            key: Random key of the weak views.
            compute: Computes the features if they are not on disk.

        Returns:
            Features on the CPU. Shape (N, embed_dim).
        """
        weights = self.identity.get("backbone") or fingerprint(self.clip_model)
        precision = [] if self.precision == "fp32" else [self.precision]
        parts = [*cache_key(weights, self.device.type, images, num_views, key), *precision]
        count, width = len(images), width_of(self.clip_model)
        return cached(compute, FEATURE_CACHE, *parts, shape=(count, width))


def cache_key(
    weights: str, device: str, images: UnlabeledImages, num_views: int, key: Sequence[int | str]
) -> list[str]:
    """Build the cache key of image features from everything that they depend on.

    Args:
        weights: Fingerprint of the CLIP.
        device: Type of its device.
        images: The unlabeled images.
        num_views: Number of views per image.
        key: Random key of the weak views, if there are any.
    """
    drawn = (*key, torchvision.__version__) if num_views > 1 else ()
    view = repr((images.inputs, images.pool.decoding, num_views, *drawn))
    return [weights, images.digest, view, str(images.test_batch_size), device]
