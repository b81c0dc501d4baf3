"""Tools for models: loading pre-trained weights, and counting parameters."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from .checkpoints import load_checkpoint, resume_from_checkpoint, save_checkpoint, strip_module
from .files import StrPath

__all__ = [
    "count_num_param",
    "load_checkpoint",
    "load_pretrained_weights",
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
    fitting = {name: x for name, x in weights.items() if name in present and x.shape == present[name].shape}
    if not fitting:
        warnings.warn(f"Cannot load {weight_path} (check the key names manually)", stacklevel=2)
        return
    target.load_state_dict({**present, **fitting})
    print(f"Successfully loaded pretrained weights from {weight_path}")
    discarded = [name for name in weights if name not in fitting]
    if discarded:
        print(f"Layers discarded due to unmatched keys or size: {discarded}")


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
