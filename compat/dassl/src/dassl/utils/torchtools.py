"""Tools for models: loading pre-trained weights, counting, freezing and initialising parameters."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from .checkpoints import load_checkpoint, resume_from_checkpoint, save_checkpoint, strip_module
from .files import StrPath

__all__ = [
    "count_num_param",
    "init_network_weights",
    "load_checkpoint",
    "load_pretrained_weights",
    "open_all_layers",
    "open_specified_layers",
    "resume_from_checkpoint",
    "save_checkpoint",
]


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside a parallel wrapper, or the model itself."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return model.module if isinstance(model, wrappers) else model


def load_pretrained_weights(model: nn.Module, weight_path: StrPath) -> None:
    """Load the weights that match by name and shape; other weights keep their values.

    Args:
        model: Model, changed in place.
        weight_path: Path of a checkpoint or of a bare state dict. A prefix "module." of names is ignored.
    """
    checkpoint = load_checkpoint(weight_path)
    target = unwrap(model)
    present = target.state_dict()
    weights = strip_module(checkpoint.get("state_dict", checkpoint))
    fitting = {name: value for name, value in weights.items() if name in present and _fits(value, present[name])}
    if not fitting:
        warnings.warn(f"Cannot load {weight_path} (check the key names manually)", stacklevel=2)
        return
    target.load_state_dict({**present, **fitting})
    print(f"Successfully loaded pretrained weights from {weight_path}")
    discarded = [name for name in weights if name not in fitting]
    if discarded:
        print(f"Layers discarded due to unmatched keys or size: {discarded}")


def _fits(new: Any, present: Any) -> bool:
    if isinstance(new, torch.Tensor) and isinstance(present, torch.Tensor):
        return new.shape == present.shape
    return type(new) is type(present)


def count_num_param(model: nn.Module | None = None, params: Any = None) -> int:
    """Count the parameters of a model, or of an iterable of parameters or parameter groups.

    Raises:
        ValueError: If neither is given.
    """
    if model is not None:
        return sum(p.numel() for p in model.parameters())
    if params is None:
        raise ValueError("model and params must provide at least one.")
    flat = (p for entry in params for p in (entry["params"] if isinstance(entry, dict) else [entry]))
    return sum(p.numel() for p in flat)


def open_all_layers(model: nn.Module) -> None:
    """Put a model into training mode, and make all its parameters trainable."""
    model.train()
    model.requires_grad_(True)


def open_specified_layers(model: nn.Module, open_layers: str | Sequence[str]) -> None:
    """Make some direct children trainable, and freeze the others in eval mode.

    Args:
        model: Model, possibly in a parallel wrapper; changed in place.
        open_layers: Names of the trainable children.

    Raises:
        ValueError: If no child has a given name.
    """
    target = unwrap(model)
    chosen = [open_layers] if isinstance(open_layers, str) else list(open_layers)
    children = dict(target.named_children())
    for name in chosen:
        if name not in children:
            raise ValueError(f'"{name}" is no layer of the model; expected one of {list(children)}')
    for name, child in children.items():
        child.train(name in chosen)
        child.requires_grad_(name in chosen)


_INITIALISERS = {
    "normal": lambda weight, gain: nn.init.normal_(weight, 0.0, gain),
    "xavier": lambda weight, gain: nn.init.xavier_normal_(weight, gain=gain),
    "kaiming": lambda weight, gain: nn.init.kaiming_normal_(weight, a=0, mode="fan_in"),
    "orthogonal": lambda weight, gain: nn.init.orthogonal_(weight, gain=gain),
}


def init_network_weights(model: nn.Module, init_type: str = "normal", gain: float = 0.02) -> None:
    """Initialise the weights of convolutions and linear layers, and set norms to the identity.

    Args:
        model: Model, changed in place.
        init_type: "normal", "xavier", "kaiming" or "orthogonal".
        gain: Standard deviation for "normal", gain for "xavier" and "orthogonal"; unused for "kaiming".

    Raises:
        NotImplementedError: If the type is unknown.
    """
    if init_type not in _INITIALISERS:
        raise NotImplementedError(f"init_type is {init_type!r}; expected one of {list(_INITIALISERS)}")
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            _INITIALISERS[init_type](module.weight, gain)
            _zero([module.bias])
        elif isinstance(module, (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)):
            if module.weight is not None:
                nn.init.ones_(module.weight)
            _zero([module.bias])


def _zero(biases: Iterable[torch.Tensor | None]) -> None:
    for bias in biases:
        if bias is not None:
            nn.init.zeros_(bias)
