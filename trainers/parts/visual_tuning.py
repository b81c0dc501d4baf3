"""What trains in the image encoder. Weights that stay frozen are shared with the CLIP that they came from.

Phase I trains a light module (COFT.VISUAL names one of `VISUAL_MODULES`), Phase II everything.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from datasets.errors import UserError, did_you_mean

NORMS = (nn.BatchNorm2d, nn.LayerNorm)


def is_vit(visual: nn.Module) -> bool:
    """Whether an image encoder of CLIP is a vision transformer (else it is a ModifiedResNet)."""
    return hasattr(visual, "transformer")


def share_frozen(module: nn.Module, trained: set[str]) -> nn.Module:
    """Copy a module's structure, but only the named parameters with it: all others are the same tensors.

    Args:
        module: Any module.
        trained: Names of the parameters to copy, which will require gradients; the rest will not.

    Returns:
        The copy.
    """
    shared: dict[int, Tensor] = {id(t): t for name, t in module.named_parameters() if name not in trained}
    shared |= {id(t): t for t in module.buffers()}
    twin = copy.deepcopy(module, memo=shared)
    for name, parameter in twin.named_parameters():
        if name in trained:
            parameter.requires_grad_(True)
    return twin


def norms_and_biases(visual: nn.Module, generator: torch.Generator, cfg: Any) -> nn.Module:
    """Train the weights of normalisation layers and all biases (statistics of batch norms stay)."""
    in_norms = {
        f"{name}.{key}"
        for name, child in visual.named_modules()
        if isinstance(child, NORMS)
        for key in ("weight", "bias")
    }
    return share_frozen(visual, in_norms | {name for name, _ in visual.named_parameters() if name.endswith("bias")})


class DeepPromptedViT(nn.Module):
    """Visual prompt tuning (VPT-deep, Jia et al. 2022): learned tokens in front of every layer's input.

    Args:
        visual: CLIP's vision transformer.
        num_tokens: Tokens added to each layer's input, taking the place of those of the layer before.
        generator: Source of the tokens' start, uniform as in the paper.

    Shape:
        Images (n, 3, size, size) to features (n, embed_dim), not normalised.
    """

    def __init__(self, visual: Any, num_tokens: int, generator: torch.Generator) -> None:
        super().__init__()
        self.visual: Any = share_frozen(visual, set())
        depth, width = len(visual.transformer.resblocks), visual.conv1.out_channels
        fan_in = 3 * visual.conv1.kernel_size[0] ** 2
        bound = (6 / (fan_in + width)) ** 0.5
        start = torch.rand(depth, num_tokens, width, generator=generator)
        self.tokens = nn.Parameter((2 * start - 1) * bound)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images."""
        visual: Any = self.visual
        patches = visual.conv1(images).flatten(2).transpose(1, 2)
        cls = visual.class_embedding.expand(len(images), 1, -1)
        x = visual.ln_pre(torch.cat([cls, patches], dim=1) + visual.positional_embedding).transpose(0, 1)
        num_tokens = self.tokens.shape[1]
        for tokens, block in zip(self.tokens, visual.transformer.resblocks, strict=True):
            prompts = tokens.unsqueeze(1).expand(-1, x.shape[1], -1)
            y = block(torch.cat([x[:1], prompts, x[1:]]))
            x = torch.cat([y[:1], y[1 + num_tokens :]])
        return visual.ln_post(x[0]) @ visual.proj


def vpt_deep(visual: nn.Module, generator: torch.Generator, cfg: Any) -> nn.Module:
    """Train COFT.VPT_TOKENS visual prompt tokens a layer.

    Raises:
        UserError: If the image encoder is no vision transformer.
    """
    if not is_vit(visual):
        raise UserError("TRAINER.COFT.VISUAL vpt-deep needs a ViT backbone; use norms-and-biases with a ResNet")
    return DeepPromptedViT(visual, cfg.TRAINER.COFT.VPT_TOKENS, generator)


VISUAL_MODULES: dict[str, Callable[[nn.Module, torch.Generator, Any], nn.Module]] = {
    "vpt-deep": vpt_deep,
    "norms-and-biases": norms_and_biases,
}


def light_module(visual: nn.Module, generator: torch.Generator, cfg: Any) -> nn.Module:
    """Build the visual module of Phase I: COFT.VISUAL, or what "auto" stands for with this encoder."""
    name = cfg.TRAINER.COFT.VISUAL
    if name == "auto":
        name = "vpt-deep" if is_vit(visual) else "norms-and-biases"
    if name not in VISUAL_MODULES:
        raise UserError(f"TRAINER.COFT.VISUAL is {name!r}; {did_you_mean(name, ['auto', *VISUAL_MODULES])}")
    return VISUAL_MODULES[name](visual, generator, cfg)


def everything(encoder: nn.Module) -> nn.Module:
    """Copy an encoder with all its weights, all of which train (statistics of batch norms do not)."""
    return copy.deepcopy(encoder).requires_grad_(True)


def freeze_statistics(module: nn.Module) -> None:
    """Keep batch norms at the statistics of pre-training, also in training mode."""
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.eval()
