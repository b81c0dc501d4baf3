"""Differences between this project's forward passes and open_clip's, in float64, for tiny random models.

A difference is the largest absolute one, divided by the largest value.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.backbones.load import load_clip
from coft.backbones.prompts import PromptLearner, encode_prompts, template_features, word_context
from coft.backbones.tower import tower_of
from coft.backbones.visual_tuning import light_module
from coft.core.errors import UserError
from tests.open_clip_models import ALL_CONFIGS

NAMES = ["cat", "golden_retriever", "a very long name of words", "bus"]
TEMPLATE = "a photo of a {}."


class Pair:
    """A model loaded by this project (`model`) and by open_clip (`reference`), in float64.

    Args:
        folder: Folder of the model; its name is a key of `ALL_CONFIGS`.
    """

    def __init__(self, folder: Path) -> None:
        import open_clip

        self.model: Any = load_clip(f"open_clip:{folder}").double()
        self.reference: Any = open_clip.create_model(f"local-dir:{folder}").double().eval().requires_grad_(False)
        self.tokenizer: Any = open_clip.get_tokenizer(f"local-dir:{folder}")
        self.size: int = ALL_CONFIGS[folder.name]["vision_cfg"]["image_size"]

    def images(self, seed: int = 0) -> Tensor:
        source = torch.Generator().manual_seed(seed)
        return torch.randn(3, 3, self.size, self.size, generator=source, dtype=torch.float64)

    def image_error(self) -> float:
        images = self.images()
        features, reference = self.model.visual(images), self.reference.encode_image(images)
        return difference(F.normalize(features, dim=-1), F.normalize(reference, dim=-1))

    def template_error(self) -> float:
        texts = [TEMPLATE.format(name.replace("_", " ")) for name in NAMES]
        reference = F.normalize(self.reference.encode_text(self.tokenizer(texts)), dim=-1)
        return difference(template_features(self.model, NAMES, TEMPLATE), reference)

    def context_error(self, position: str, of_classes: bool) -> float:
        """Largest difference of features and context gradients of two prompts."""
        words = word_context(self.model, "a photo of a")
        source = torch.Generator().manual_seed(1)
        shape = (len(NAMES), *words.shape) if of_classes else words.shape
        contexts = [torch.randn(shape, generator=source, dtype=torch.float64) for _ in range(2)]
        learners = [PromptLearner(self.model, NAMES, context.clone(), position=position) for context in contexts]
        features = encode_prompts(self.model, *learners)
        copies = [context.clone().requires_grad_(True) for context in contexts]
        reference = torch.stack([self.naive(context, position) for context in copies])
        pull = torch.randn(features.shape, generator=source, dtype=torch.float64)
        gradients = torch.autograd.grad((features * pull).sum(), [learner.ctx for learner in learners])
        reference_gradients = torch.autograd.grad((reference * pull).sum(), copies)
        return max(difference(features, reference), *map(difference, gradients, reference_gradients))

    def naive(self, context: Tensor, position: str) -> Tensor:
        """Features of open_clip's text encoder, class by class, with context embeddings in place of words."""
        features = []
        for i, name in enumerate(NAMES):
            name = name.replace("_", " ")
            tokens = self.tokenizer([TEMPLATE.format(name)])[0]
            tower = tower_of(self.model)
            start, length = len(tower.tokenizer.start), len(tower.tokenizer.continued(name, ".")[0])
            num_ctx, half = context.shape[-2], context.shape[-2] // 2
            context_positions, name_end = range(start, start + num_ctx), start + num_ctx + length
            name_positions = range(start + num_ctx, name_end)
            order = {
                "end": [*context_positions, *name_positions],
                "middle": [*context_positions[:half], *name_positions, *context_positions[half:]],
                "front": [*name_positions, *context_positions],
            }[position]
            order = [*range(start), *order, *range(name_end, len(tokens))]
            module = getattr(self.reference, "text", self.reference)
            rows = module.token_embedding.weight[tokens]
            rows = torch.cat([rows[:start], context[i] if context.dim() == 3 else context, rows[start + num_ctx :]])
            with embeddings(module, rows[order]):
                features.append(text_features(self.reference, tokens[order][None])[0])
        return torch.stack(features)

    def light_error(self, name: str) -> float | None:
        """Difference of an untrained light module; None where it is not supported."""
        try:
            module = light_module(self.model.visual, name, torch.Generator().manual_seed(0)).double()
        except UserError:
            return None
        if name == "vpt-deep":
            return difference(module(self.images()), self.naive_vpt(module.tokens))
        return difference(module(self.images()), self.model.visual(self.images()))

    def naive_vpt(self, tokens: Tensor) -> Tensor:
        """Visual prompts inserted and removed by hooks on open_clip's blocks."""
        visual = getattr(self.reference, "visual", None)
        trunk = getattr(visual, "trunk", None)
        blocks = trunk.blocks if trunk is not None else visual.transformer.resblocks
        prefix = trunk.num_prefix_tokens if trunk is not None else 1

        def insert(block: nn.Module, inputs: Any) -> Any:
            x, prompts = inputs[0], tokens[[*blocks].index(block)].expand(len(inputs[0]), -1, -1)
            return (torch.cat([x[:, :prefix], prompts, x[:, prefix:]], dim=1), *inputs[1:])

        def remove(block: nn.Module, inputs: Any, x: Tensor) -> Tensor:
            return torch.cat([x[:, :prefix], x[:, prefix + tokens.shape[1] :]], dim=1)

        rotary = [block.attn for block in blocks if hasattr(getattr(block, "attn", None), "num_prefix_tokens")]
        for attention in rotary:  # prompts have no position in the image
            attention.num_prefix_tokens += tokens.shape[1]
        hooks = [block.register_forward_pre_hook(insert) for block in blocks]
        hooks += [block.register_forward_hook(remove) for block in blocks]
        features = visual(self.images())
        for hook in hooks:
            hook.remove()
        for attention in rotary:
            attention.num_prefix_tokens -= tokens.shape[1]
        return features[0] if isinstance(features, tuple) else features


def text_features(model: Any, tokens: Tensor) -> Tensor:
    """open_clip's features before normalisation."""
    return model.encode_text(tokens, normalize=False)


@contextmanager
def embeddings(module: Any, rows: Tensor) -> Iterator[None]:
    """Replace the token embeddings of a text by `rows`."""

    class Fixed(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return rows.expand(len(tokens), -1, -1)

    original = module.token_embedding
    module.token_embedding = Fixed()
    try:
        yield
    finally:
        module.token_embedding = original


def difference(a: Tensor, b: Tensor) -> float:
    """Largest absolute difference, divided by the largest value."""
    assert a.shape == b.shape
    return ((a - b).abs().max() / b.abs().max()).item()
