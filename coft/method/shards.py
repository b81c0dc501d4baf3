"""Encoders that train in full, dealt out to the processes of a run: each has a part of every weight (torch's FSDP2).

The weights of a block are put together on every device while it runs, forward and back; its gradients are added up
and dealt out after it. The few weights outside blocks are whole for a step. A process has its part of all the others,
of gradients, the optimizer's moments and the moving average. Whoever labels, tests or saves gets whole tensors.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .classifier import Classifier
from .world import World, is_part

Deal = Callable[[nn.Module], None]
LISTS = (nn.Sequential, nn.ModuleList)  # what CLIP's, open_clip's and timm's encoders hold their blocks in


def leave_whole(encoder: nn.Module) -> None:
    """Deal nothing out."""


def deal(world: World, device: torch.device, encoder: nn.Module) -> None:
    """Deal out what trains of an encoder block by block, in place.

    Args:
        world: The processes. Each calls this with the same weights.
        device: Of the encoder.
        encoder: What does not require gradients stays whole.
    """
    from torch.distributed.device_mesh import init_device_mesh  # these take a second to import
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (world.size,))
    frozen = {value for value in encoder.parameters() if not value.requires_grad}
    for part in (*blocks_of(encoder), encoder):
        dealt = fully_shard(part, mesh=mesh, ignored_params=frozen)
        dealt.set_gradient_divide_factor(1.0)  # losses are parts of the whole batch's, so gradients are added up
        dealt.set_force_sum_reduction_for_comms(True)


def blocks_of(encoder: nn.Module) -> list[nn.Module]:
    """Blocks that train: what repeats in an encoder, like the layers of a transformer or the bottlenecks of a ResNet.

    Args:
        encoder: Its blocks are items of lists, of lists in lists as well, and have layers of their own.
    """
    return [block for block in _blocks_in(encoder) if any(value.requires_grad for value in block.parameters())]


def _blocks_in(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        is_block = isinstance(module, LISTS) and not isinstance(child, LISTS) and any(True for _ in child.children())
        if is_block:
            yield child
        else:
            yield from _blocks_in(child)


def part_like(value: Tensor, known: Any) -> Tensor:
    """This process's part of a whole tensor, dealt out as another one is; the tensor itself where that is whole."""
    if not is_part(known) or is_part(value) or value.shape != known.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(known.device), known.device_mesh, known.placements, src_data_rank=None)


def parts_like(state: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """`part_like` of every tensor of a state dict."""
    return {k: part_like(value, known.get(k)) if isinstance(value, Tensor) else value for k, value in state.items()}


def deal_moments(optimizer: Optimizer) -> None:
    """Deal out moments that were loaded whole, as their weights are."""
    for weight, moments in optimizer.state.items():
        moments.update({name: part_like(value, weight) for name, value in moments.items()})


def whole(classifier: Classifier, like: nn.Module) -> Classifier:
    """A classifier with whole weights: itself, or a copy that shares all but the encoder.

    Args:
        classifier: All processes call this at the same time.
        like: An encoder of the same structure, and the same frozen weights.
    """
    values = dict(classifier.encoder.named_parameters())
    if not any(map(is_part, values.values())):
        return classifier
    encoder = copy.deepcopy(like).requires_grad_(False)
    with torch.no_grad():
        for name, value in encoder.named_parameters():
            value.copy_(_put_together(values[name]))
    twin = copy.copy(classifier)
    twin._modules = {**classifier._modules, "encoder": encoder}
    return twin


@contextmanager
def gathered(parts: Iterable[Any], keeps: bool) -> Iterator[None]:
    """Context in which `state_dict` of some models and optimizers has whole tensors, in the computer's memory.

    Args:
        parts: The models and optimizers. All processes enter at the same time.
        keeps: Whether this process wants them; in others nothing is kept.
    """
    changed = list(parts)
    for part in changed:
        state = _in_memory(part.state_dict(), keeps)
        part.state_dict = partial(dict, state)  # of the object, in front of the one of its class
    try:
        yield
    finally:
        for part in changed:
            del part.state_dict


def _in_memory(state: Any, keeps: bool) -> Any:
    if isinstance(state, Mapping):
        return {key: _in_memory(value, keeps) for key, value in state.items()}
    if not is_part(state):
        return state
    value = _put_together(state)
    return value.cpu() if keeps else None


def _put_together(value: Any) -> Tensor:
    return value.full_tensor() if is_part(value) else value
