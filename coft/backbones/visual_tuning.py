"""What trains in the image encoder. Weights that stay frozen are shared with the CLIP that they came from.

Phase I trains a light module (the key VISUAL names one of `VISUAL_MODULES`), Phase II everything.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from coft.backbones.low_rank import add_low_rank
from coft.backbones.residual_block import run_block
from coft.runtime.errors import UserError, did_you_mean
from coft.runtime.ranges import check_positive

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


def norms_and_biases(visual: nn.Module, generator: torch.Generator, own: Any) -> nn.Module:
    """Train the weights of normalisation layers and all biases (statistics of batch norms stay)."""
    in_norms = {
        f"{name}.{key}"
        for name, child in visual.named_modules()
        if isinstance(child, NORMS)
        for key in ("weight", "bias")
    }
    return share_frozen(visual, in_norms | {name for name, _ in visual.named_parameters() if name.endswith("bias")})


class PromptedViT(nn.Module):
    """Visual prompt tuning (VPT, Jia et al. 2022): learned tokens between the class token and the patches.

    Args:
        visual: CLIP's vision transformer.
        num_tokens: Number of tokens.
        generator: Source of the tokens' start, uniform as in the paper.
        deep: Whether every layer has tokens of its own, in the place of the layer before's; else the first alone has.

    Shape:
        Images (n, 3, size, size) to features (n, embed_dim), not normalised.
    """

    def __init__(self, visual: Any, num_tokens: int, generator: torch.Generator, deep: bool = True) -> None:
        super().__init__()
        self.visual: Any = share_frozen(visual, set())
        depth = len(visual.transformer.resblocks) if deep else 1
        width, fan_in = visual.conv1.out_channels, 3 * visual.conv1.kernel_size[0] ** 2
        bound = (6 / (fan_in + width)) ** 0.5
        start = torch.rand(depth, num_tokens, width, generator=generator)
        self.tokens = nn.Parameter((2 * start - 1) * bound)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images."""
        visual: Any = self.visual
        patches = visual.conv1(images).flatten(2).transpose(1, 2)
        cls = visual.class_embedding.expand(len(images), 1, -1)
        x = visual.ln_pre(torch.cat([cls, patches], dim=1) + visual.positional_embedding)
        after, last = 1, len(visual.transformer.resblocks) - 1  # where the patches begin; the last layer
        for i, block in enumerate(visual.transformer.resblocks):
            if i < len(self.tokens):
                prompts = self.tokens[i].to(x.dtype).expand(len(x), -1, -1)
                x = torch.cat([x[:, :1], prompts, x[:, after:]], dim=1)
                after = 1 + prompts.shape[1]
            x = self.run_block(block, x, slice(1) if i == last else slice(None))
        return visual.ln_post(x[:, 0]) @ visual.proj

    def run_block(self, block: nn.Module, x: Tensor, rows: slice) -> Tensor:
        """Run a residual block: see `residual_block.run_block`."""
        return run_block(block, x, rows)


def vpt_deep(visual: nn.Module, generator: torch.Generator, own: Any) -> nn.Module:
    """Train VPT_TOKENS visual prompt tokens in every layer of a vision transformer."""
    return PromptedViT(visual, own.VPT_TOKENS, generator)


def vpt_shallow(visual: nn.Module, generator: torch.Generator, own: Any) -> nn.Module:
    """Train VPT_TOKENS visual prompt tokens in front of the first layer of a vision transformer."""
    return PromptedViT(visual, own.VPT_TOKENS, generator, deep=False)


def lora(visual: nn.Module, generator: torch.Generator, own: Any) -> nn.Module:
    """Train low-rank updates, of rank LORA_RANK, of queries and values, or of a ResNet's convolutions."""
    return add_low_rank(share_frozen(visual, set()), own.LORA_RANK, generator)


def no_module(visual: nn.Module, generator: torch.Generator, own: Any) -> nn.Module:
    """Train nothing of the encoder: prompts alone."""
    return share_frozen(visual, set())


class Adapter(nn.Module):
    """A bottleneck with a residual connection (Houlsby et al. 2019), at first the identity.

    Args:
        width: Number of channels.
        reduction: How many times fewer the bottleneck has.
        generator: Source of the random numbers.
        channels_last: Whether channels are the last dimension (tokens) or the second (feature maps).
    """

    def __init__(self, width: int, reduction: int, generator: torch.Generator, channels_last: bool) -> None:
        super().__init__()
        narrow = max(1, width // reduction)
        self.down = nn.Parameter(torch.randn(narrow, width, generator=generator) * width**-0.5)
        self.up = nn.Parameter(torch.zeros(width, narrow))
        self.channels_last = channels_last

    def forward(self, x: Tensor) -> Tensor:
        """Shape as the input's."""
        y = x if self.channels_last else x.movedim(1, -1)
        y = torch.relu(y @ self.down.t().to(y.dtype)) @ self.up.t().to(y.dtype)
        return x + (y if self.channels_last else y.movedim(-1, 1))


def adapter(visual: nn.Module, generator: torch.Generator, own: Any) -> nn.Module:
    """Train a bottleneck adapter behind every block; ADAPTER_REDUCTION sets how narrow it is."""
    twin: Any = share_frozen(visual, set())
    stages = [twin.transformer.resblocks] if is_vit(visual) else [getattr(twin, f"layer{i}") for i in (1, 2, 3, 4)]
    for stage in stages:
        for i, block in enumerate(stage):
            width = twin.conv1.out_channels if is_vit(visual) else block.bn3.num_features
            behind = Adapter(width, own.ADAPTER_REDUCTION, generator, channels_last=is_vit(visual))
            stage[i] = nn.Sequential(block, behind)
    return twin


VISUAL_MODULES: dict[str, Callable[[nn.Module, torch.Generator, Any], nn.Module]] = {
    "vpt-deep": vpt_deep,
    "vpt-shallow": vpt_shallow,
    "lora": lora,
    "adapter": adapter,
    "norms-and-biases": norms_and_biases,
    "none": no_module,
}
OF_VITS = ("vpt-deep", "vpt-shallow")


def check_module(cfg: Any, section: str) -> None:
    """Refuse a light visual module of an unknown name, and sizes below 1.

    Args:
        cfg: The config.
        section: The trainer's, such as "TRAINER.COFT".

    Raises:
        UserError: Naming the key.
    """
    name = cfg.TRAINER[section.rpartition(".")[2]].VISUAL
    if name != "auto" and name not in VISUAL_MODULES:
        raise UserError(f"{section}.VISUAL is {name!r}; {did_you_mean(name, ['auto', *VISUAL_MODULES])}")
    check_positive(cfg, *(f"{section}.{key}" for key in ("VPT_TOKENS", "LORA_RANK", "ADAPTER_REDUCTION")))


def light_module(visual: nn.Module, generator: torch.Generator, own: Any, section: str = "TRAINER.COFT") -> nn.Module:
    """Build the visual module of Phase I: the key VISUAL, or what "auto" stands for with this encoder.

    Args:
        visual: CLIP's image encoder.
        generator: Source of the module's start.
        own: The trainer's section of the config.
        section: Its name.

    Raises:
        UserError: If the module does not go with the encoder.
    """
    name = own.VISUAL
    if name == "auto":
        name = "vpt-deep" if is_vit(visual) else "norms-and-biases"
    if name in OF_VITS and not is_vit(visual):
        others = ", ".join(key for key in VISUAL_MODULES if key not in OF_VITS)
        raise UserError(f"{section}.VISUAL {name} needs a ViT backbone; with a ResNet set one of {others}")
    return VISUAL_MODULES[name](visual, generator, own)


def everything(encoder: nn.Module) -> nn.Module:
    """Copy an encoder with all its weights, all of which train (statistics of batch norms do not)."""
    return copy.deepcopy(encoder).requires_grad_(True)


def freeze_statistics(module: nn.Module) -> None:
    """Keep batch norms at the statistics of pre-training, also in training mode."""
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.eval()
