"""Image encoders: features of images, and conversion to the tensors that training changed, and back."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.backbones.architecture import is_vit
from coft.backbones.joint import JointVisual, members_of
from coft.backbones.visual_tuning import VISUAL_MODULES, VIT_ONLY_MODULES
from coft.core.parallel import Parallel

PLAIN = "none"  # no light module: the backbone's own encoder
WHOLE = -1  # origin of an encoder that was made from the whole backbone
Tensors = dict[str, Tensor]


@torch.no_grad()
def encode_images(
    encoders: Sequence[nn.Module], images: Tensor, parallel: Parallel, dtype: torch.dtype | None
) -> list[Tensor]:
    """Return the unit-length features of images by each encoder, in fp32. Shape (n, embed_dim) each.

    Args:
        encoders: Image encoders on the device of the images.
        images: Images, or outputs of the frozen stages. Shape (n, 3, size, size) for images.
        parallel: Runs several encoders in parallel.
        dtype: Dtype of the forward pass; None is fp32.
    """
    by_name = {str(number): encoder for number, encoder in enumerate(encoders)}

    def encode(name: str) -> Tensor:
        return F.normalize(by_name[name](images).float(), dim=-1)

    with torch.autocast(images.device.type, dtype=dtype, enabled=dtype is not None):
        return list(parallel.map_without_gradients(encode, list(by_name)).values())


def with_module(visual: nn.Module, name: str) -> nn.Module:
    """Return the backbone's encoder with an untrained light module, or itself for `PLAIN`. Frozen tensors are shared.

    Args:
        visual: The backbone's encoder.
        name: A key of `VISUAL_MODULES`.
    """
    if name == PLAIN:
        return visual
    return VISUAL_MODULES[name](visual, torch.Generator().manual_seed(0))


def origin_of(encoder: nn.Module, visual: nn.Module) -> int:
    """Return the number of the backbone's checkpoint that an encoder was made from, or WHOLE.

    If several checkpoints are possible, the one that differs from the encoder in the fewest tensors is returned.
    """
    members = members_of(visual)
    if len(members) == 1 or isinstance(encoder, JointVisual):
        return WHOLE
    differing = {}
    for number, member in enumerate(members):
        with suppress(ValueError):
            differing[number] = len(changed_tensors(encoder, member))
    return min(differing, key=lambda number: differing[number])


def visual_at(visual: nn.Module, origin: int) -> nn.Module:
    """Return the image encoder of one of a backbone's checkpoints; see `origin_of`."""
    return visual if origin == WHOLE else members_of(visual)[origin]


def module_of(encoder: nn.Module, visual: nn.Module) -> str:
    """Identify the light module of an encoder by the names and shapes of its tensors.

    Args:
        encoder: An encoder made from `visual`.
        visual: The backbone's encoder.

    Returns:
        A key of `VISUAL_MODULES`.

    Raises:
        ValueError: If no light module matches these tensors.
    """
    if isinstance(visual, JointVisual):
        return PLAIN
    shapes = _shapes(encoder)
    for name in (PLAIN, *(name for name in VISUAL_MODULES if name != PLAIN)):
        if name in VIT_ONLY_MODULES and not is_vit(visual):
            continue
        if _shapes(with_module(visual, name)) == shapes:
            return name
    raise ValueError(f"{type(encoder).__name__} is no encoder of this backbone")


def changed_tensors(encoder: nn.Module, visual: nn.Module) -> Tensors:
    """Return contiguous CPU copies of the tensors that training changed, by name.

    Args:
        encoder: An encoder made from `visual`.
        visual: The backbone's encoder.
    """
    if encoder is visual:
        return {}
    untrained = with_module(visual, module_of(encoder, visual)).state_dict()
    return {
        name: stored(tensor)
        for name, tensor in encoder.state_dict().items()
        if not torch.equal(untrained[name].to(tensor), tensor)
    }


def stored(tensor: Tensor) -> Tensor:
    """Return a contiguous copy of a tensor on the CPU, as a file takes it."""
    return tensor.detach().cpu().contiguous().clone()


def rebuild(visual: nn.Module, module: str, changed: Mapping[str, Tensor]) -> nn.Module:
    """Rebuild an encoder from the backbone's encoder and the tensors that training changed.

    Args:
        visual: The backbone's encoder. It is returned itself if there is no light module and nothing was changed.
        module: A key of `VISUAL_MODULES`.
        changed: The changed tensors by name, as `changed_tensors` returns them.

    Raises:
        ValueError: If a changed tensor matches no tensor of the encoder in name, shape and kind (float or integer).
    """
    if module == PLAIN and not changed:
        return visual
    encoder = copy.deepcopy(with_module(visual, module))  # otherwise loading would change the shared tensors
    state = encoder.state_dict()
    for name, tensor in changed.items():
        place = state.get(name)
        if place is None or place.shape != tensor.shape or place.is_floating_point() != tensor.is_floating_point():
            raise ValueError(f"the encoder has no tensor {name} of shape {tuple(tensor.shape)} and {tensor.dtype}")
    encoder.load_state_dict({**state, **changed})
    return encoder.eval().requires_grad_(False)


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items() if isinstance(tensor, Tensor)}
