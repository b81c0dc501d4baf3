"""Image encoders as what training changed in them, and back."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from coft.backbones.architecture import is_vit
from coft.backbones.visual_tuning import OF_VITS, VISUAL_MODULES

PLAIN = "none"  # of VISUAL_MODULES: the backbone's own encoder
Tensors = dict[str, Tensor]


def with_module(visual: nn.Module, name: str) -> nn.Module:
    """The backbone's encoder with an untrained light module. Frozen tensors are shared with it.

    Args:
        visual: The backbone's encoder.
        name: A name of `VISUAL_MODULES`.
    """
    return VISUAL_MODULES[name](visual, torch.Generator().manual_seed(0))


def module_of(encoder: nn.Module, visual: nn.Module) -> str:
    """Which light module an encoder has, by the names and shapes of its tensors.

    Args:
        encoder: Made from `visual`.
        visual: The backbone's encoder.

    Raises:
        ValueError: If it is none that was made so.
    """
    shapes = _shapes(encoder)
    for name in (PLAIN, *(name for name in VISUAL_MODULES if name != PLAIN)):
        if name in OF_VITS and not is_vit(visual):
            continue
        if _shapes(with_module(visual, name)) == shapes:
            return name
    raise ValueError(f"{type(encoder).__name__} is no encoder of this backbone")


def changed_tensors(encoder: nn.Module, visual: nn.Module) -> Tensors:
    """Tensors of an encoder that are others than those of `with_module`; on the CPU, contiguous."""
    known = with_module(visual, module_of(encoder, visual)).state_dict()
    return {
        name: value.detach().cpu().contiguous().clone()
        for name, value in encoder.state_dict().items()
        if not torch.equal(known[name].to(value), value)
    }


def rebuilt(visual: nn.Module, module: str, changed: Mapping[str, Tensor]) -> nn.Module:
    """An encoder again, from the backbone's and what was changed.

    Args:
        visual: The backbone's encoder, returned as it is if nothing was changed.
        module: A name of `VISUAL_MODULES`.
        changed: As of `changed_tensors`.

    Raises:
        ValueError: If tensors have names or shapes that the encoder does not have.
    """
    if module == PLAIN and not changed:
        return visual
    encoder = copy.deepcopy(with_module(visual, module))  # or loading would change the shared tensors
    shapes = _shapes(encoder)
    for name, value in changed.items():
        if shapes.get(name) != value.shape:
            raise ValueError(f"the encoder has no tensor {name} of shape {tuple(value.shape)}")
    encoder.load_state_dict({**encoder.state_dict(), **changed})
    return encoder.eval().requires_grad_(False)


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in module.state_dict().items() if isinstance(value, Tensor)}
