"""Trainable parts of the image encoder. Frozen weights are shared with the CLIP that they come from.

Phase I trains a light module: the setting `visual` names one of `VISUAL_MODULES`. Phase II trains everything.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from coft.backbones.architecture import is_vit, timm_vit
from coft.backbones.low_rank import add_low_rank
from coft.backbones.residual_block import run_block
from coft.backbones.stages import stays_frozen
from coft.backbones.vit import add_prefix_tokens, parts_of
from coft.core.errors import UserError, did_you_mean

NORMS = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
VPT_TOKENS = 20  # visual prompt tokens per layer
LORA_RANK = 4


def share_frozen(module: nn.Module, trained: set[str]) -> nn.Module:
    """Copy a module and the named parameters. The copy shares all other parameters and all buffers with the original.

    Args:
        module: Any module.
        trained: Names of the parameters to copy. They will require gradients, except those of frozen stages.

    Returns:
        The copy.
    """
    trained = trained - stays_frozen(module)
    shared: dict[int, Tensor] = {id(t): t for name, t in module.named_parameters() if name not in trained}
    shared |= {id(t): t for t in module.buffers()}
    twin = copy.deepcopy(module, memo=shared)
    for name, parameter in twin.named_parameters():
        if name in trained:
            parameter.requires_grad_(True)
    return twin


def norms_and_biases(visual: nn.Module, generator: torch.Generator) -> nn.Module:
    """Train the weights of normalization layers and all biases. The statistics of batch norms stay frozen."""
    in_norms = {
        f"{name}.{key}"
        for name, child in visual.named_modules()
        if isinstance(child, NORMS)
        for key in ("weight", "bias")
    }
    biases = {name for name, _ in visual.named_parameters() if name.endswith("bias")}
    return share_frozen(visual, in_norms | biases)


class PromptedViT(nn.Module):
    """Visual prompt tuning (VPT, Jia et al. 2022): learned tokens between the class token and the patches.

    Every layer has its own tokens, which replace the tokens of the previous layer (VPT-deep). They are never pooled.

    Args:
        visual: A vision transformer that `vit.parts_of` supports.
        num_tokens: Number of prompt tokens per layer.
        generator: Random generator for the initial tokens, uniform as in the paper.

    Shape:
        Images (n, 3, size, size) to unnormalized features (n, embed_dim).
    """

    def __init__(self, visual: Any, num_tokens: int, generator: torch.Generator) -> None:
        super().__init__()
        self.visual: Any = share_frozen(visual, set())
        add_prefix_tokens(self.visual, num_tokens)
        patches = next(module for module in visual.modules() if isinstance(module, nn.Conv2d))
        depth, trunk = len(parts_of(visual).blocks), timm_vit(visual)
        width = visual.conv1.out_channels if trunk is None else trunk.embed_dim
        bound = (6 / (3 * patches.kernel_size[0] ** 2 + width)) ** 0.5
        start = torch.rand(depth, num_tokens, width, generator=generator)
        self.tokens = nn.Parameter(((2 * start - 1) * bound).to(patches.weight.device))

    def forward(self, images: Tensor) -> Tensor:
        """Encode images. Shape (n, embed_dim)."""
        parts = parts_of(self.visual)
        x, num_prefix = parts.embed(images), parts.prefix
        first_patch, last_layer = num_prefix, len(parts.blocks) - 1
        for i, block in enumerate(parts.blocks):
            prompts = self.tokens[i].to(x.dtype).expand(x.shape[0], -1, -1)  # an export would freeze len(x)
            x = torch.cat([x[:, :num_prefix], prompts, x[:, first_patch:]], dim=1)
            first_patch = num_prefix + prompts.shape[1]
            x = run_block(block, x, slice(parts.tokens_read if i == last_layer else None))
        if parts.tokens_read is None:
            x = torch.cat([x[:, :num_prefix], x[:, first_patch:]], dim=1)
        return parts.read_out(x)


VISUAL_MODULES: dict[str, Callable[[nn.Module, torch.Generator], nn.Module]] = {
    "vpt-deep": lambda visual, generator: PromptedViT(visual, VPT_TOKENS, generator),
    "lora": lambda visual, generator: add_low_rank(share_frozen(visual, set()), LORA_RANK, generator),
    "norms-and-biases": norms_and_biases,
    "none": lambda visual, generator: share_frozen(visual, set()),  # only the prompts train
}
VIT_ONLY_MODULES = ("vpt-deep",)  # modules that require a vision transformer


def light_module(visual: nn.Module, name: str, generator: torch.Generator) -> nn.Module:
    """Build the visual module of Phase I.

    Args:
        visual: Image encoder of a CLIP.
        name: A key of `VISUAL_MODULES`, or "auto": vpt-deep for a ViT, otherwise norms-and-biases.
        generator: Random generator for the initial values of the module.

    Raises:
        UserError: If the module is unknown or does not fit the encoder.
    """
    if name == "auto":
        name = "vpt-deep" if is_vit(visual) else "norms-and-biases"
    if name not in VISUAL_MODULES:
        raise UserError(f"VISUAL is {name!r}; {did_you_mean(name, ['auto', *VISUAL_MODULES])}")
    if name in VIT_ONLY_MODULES and not is_vit(visual):
        others = ", ".join(key for key in VISUAL_MODULES if key not in VIT_ONLY_MODULES)
        raise UserError(f"VISUAL {name} needs a ViT backbone; with a ResNet set one of {others}")
    return VISUAL_MODULES[name](visual, generator)
