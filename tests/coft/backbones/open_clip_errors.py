"""Differences between our forward passes and open_clip's own, in float64, of tiny random models of all families.

A difference is the largest one, as a share of the largest value.

    python -m tests.coft.backbones.open_clip_errors     # docs/backbones.md has the largest of each column
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.backbones.load import load_clip
from coft.backbones.prompts import PromptLearner, encode_prompts, template_features, word_context
from coft.backbones.tower import tower_of
from coft.backbones.visual_tuning import VISUAL_MODULES, light_module
from coft.core.errors import UserError
from tests.open_clip_models import EVERY, write_model

NAMES = ["cat", "golden_retriever", "a very long name of words", "bus"]
TEMPLATE = "a photo of a {}."


class Pair:
    """A model as we load it and as open_clip does, in float64.

    Args:
        folder: Of the model, by its name in `EVERY`.
    """

    def __init__(self, folder: Path) -> None:
        import open_clip

        self.ours: Any = load_clip(f"open_clip:{folder}").double()
        self.theirs: Any = open_clip.create_model(f"local-dir:{folder}").double().eval().requires_grad_(False)
        self.tokenizer: Any = open_clip.get_tokenizer(f"local-dir:{folder}")
        self.size: int = EVERY[folder.name]["vision_cfg"]["image_size"]

    def images(self, seed: int = 0) -> Tensor:
        source = torch.Generator().manual_seed(seed)
        return torch.randn(3, 3, self.size, self.size, generator=source, dtype=torch.float64)

    def image_error(self) -> float:
        images = self.images()
        ours, theirs = self.ours.visual(images), self.theirs.encode_image(images)
        return difference(F.normalize(ours, dim=-1), F.normalize(theirs, dim=-1))

    def template_error(self) -> float:
        texts = [TEMPLATE.format(name.replace("_", " ")) for name in NAMES]
        theirs = F.normalize(self.theirs.encode_text(self.tokenizer(texts)), dim=-1)
        return difference(template_features(self.ours, NAMES, TEMPLATE), theirs)

    def context_error(self, position: str, of_classes: bool) -> float:
        """Largest difference of features and of gradients to contexts, of two prompts."""
        words = word_context(self.ours, "a photo of a")
        source = torch.Generator().manual_seed(1)
        shape = (len(NAMES), *words.shape) if of_classes else words.shape
        contexts = [torch.randn(shape, generator=source, dtype=torch.float64) for _ in range(2)]
        learners = [PromptLearner(self.ours, NAMES, context.clone(), position=position) for context in contexts]
        ours = encode_prompts(self.ours, *learners)
        copies = [context.clone().requires_grad_(True) for context in contexts]
        theirs = torch.stack([self.naive(context, position) for context in copies])
        pull = torch.randn(ours.shape, generator=source, dtype=torch.float64)
        ours_grad = torch.autograd.grad((ours * pull).sum(), [learner.ctx for learner in learners])
        theirs_grad = torch.autograd.grad((theirs * pull).sum(), copies)
        return max(difference(ours, theirs), *map(difference, ours_grad, theirs_grad))

    def naive(self, context: Tensor, position: str) -> Tensor:
        """Class by class through open_clip's own text encoder, context embeddings in the place of words."""
        features = []
        for i, name in enumerate(NAMES):
            name = name.replace("_", " ")
            tokens = self.tokenizer([TEMPLATE.format(name)])[0]
            tower = tower_of(self.ours)
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
            module = getattr(self.theirs, "text", self.theirs)
            rows = module.token_embedding.weight[tokens]
            rows = torch.cat([rows[:start], context[i] if context.dim() == 3 else context, rows[start + num_ctx :]])
            with embeddings(module, rows[order]):
                features.append(text_features(self.theirs, tokens[order][None])[0])
        return torch.stack(features)

    def light_error(self, name: str) -> float | None:
        """Largest difference of a light module at its start; None where it does not fit."""
        try:
            module = light_module(self.ours.visual, name, torch.Generator().manual_seed(0)).double()
        except UserError:
            return None
        if name == "vpt-deep":
            return difference(module(self.images()), self.naive_vpt(module.tokens))
        return difference(module(self.images()), self.ours.visual(self.images()))

    def naive_vpt(self, tokens: Tensor) -> Tensor:
        """Visual prompts put before the patches and taken away again by hooks on open_clip's own blocks."""
        visual = getattr(self.theirs, "visual", None)
        trunk = getattr(visual, "trunk", None)
        blocks = trunk.blocks if trunk is not None else visual.transformer.resblocks
        prefix = trunk.num_prefix_tokens if trunk is not None else 1

        def put(block: nn.Module, inputs: Any) -> Any:
            x, prompts = inputs[0], tokens[[*blocks].index(block)].expand(len(inputs[0]), -1, -1)
            return (torch.cat([x[:, :prefix], prompts, x[:, prefix:]], dim=1), *inputs[1:])

        def take(block: nn.Module, inputs: Any, x: Tensor) -> Tensor:
            return torch.cat([x[:, :prefix], x[:, prefix + tokens.shape[1] :]], dim=1)

        rotary = [block.attn for block in blocks if hasattr(getattr(block, "attn", None), "num_prefix_tokens")]
        for attention in rotary:  # prompts have no place in the image
            attention.num_prefix_tokens += tokens.shape[1]
        hooks = [block.register_forward_pre_hook(put) for block in blocks]
        hooks += [block.register_forward_hook(take) for block in blocks]
        features = visual(self.images())
        for hook in hooks:
            hook.remove()
        for attention in rotary:
            attention.num_prefix_tokens -= tokens.shape[1]
        return features[0] if isinstance(features, tuple) else features


def text_features(model: Any, tokens: Tensor) -> Tensor:
    """open_clip's features, not normalised."""
    return model.encode_text(tokens, normalize=False)


@contextmanager
def embeddings(module: Any, rows: Tensor) -> Iterator[None]:
    """Token embeddings of a text, whatever its tokens are."""

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
    """Largest difference, as a share of the largest value."""
    assert a.shape == b.shape
    return ((a - b).abs().max() / b.abs().max()).item()


def row(family: str, folder: Path) -> Sequence[str]:
    """A row of the table."""
    pair = Pair(write_model(folder / family, EVERY[family]))
    forms = [(position, of_classes) for position in ("end", "middle", "front") for of_classes in (False, True)]
    contexts = max(pair.context_error(*form) for form in forms)
    text = "shared prefix" if tower_of(pair.ours).shares_prefix else "cut" if tower_of(pair.ours).reads_at_end else ""
    light = [pair.light_error(name) for name in VISUAL_MODULES]
    errors = [pair.image_error(), pair.template_error(), contexts, *light]
    return [family, text or "padded", *("-" if error is None else f"{error:.0e}" for error in errors)]


def main() -> None:
    """Print the table."""
    logging.disable()
    heads = ["model", "text way", "image", "templates", "contexts and gradients", *VISUAL_MODULES]
    print("| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
    with tempfile.TemporaryDirectory() as folder:
        for family in EVERY:
            print("| " + " | ".join(row(family, Path(folder))) + " |", flush=True)


if __name__ == "__main__":
    main()
