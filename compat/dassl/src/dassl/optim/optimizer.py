"""Optimizers by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from yacs.config import CfgNode

from ..utils.torchtools import unwrap
from .radam import RAdam


def _adam_options(cfg: CfgNode) -> dict[str, Any]:
    return {"lr": cfg.LR, "weight_decay": cfg.WEIGHT_DECAY, "betas": (cfg.ADAM_BETA1, cfg.ADAM_BETA2)}


def _sgd(params: Any, cfg: CfgNode) -> Optimizer:
    return SGD(
        params,
        lr=cfg.LR,
        momentum=cfg.MOMENTUM,
        weight_decay=cfg.WEIGHT_DECAY,
        dampening=cfg.SGD_DAMPNING,
        nesterov=cfg.SGD_NESTEROV,
    )


def _rmsprop(params: Any, cfg: CfgNode) -> Optimizer:
    return RMSprop(params, lr=cfg.LR, momentum=cfg.MOMENTUM, weight_decay=cfg.WEIGHT_DECAY, alpha=cfg.RMSPROP_ALPHA)


OPTIMIZERS: dict[str, Callable[[Any, CfgNode], Optimizer]] = {
    "adam": lambda params, cfg: Adam(params, **_adam_options(cfg)),
    "amsgrad": lambda params, cfg: Adam(params, **_adam_options(cfg), amsgrad=True),
    "sgd": _sgd,
    "rmsprop": _rmsprop,
    "radam": lambda params, cfg: RAdam(params, **_adam_options(cfg)),
    "adamw": lambda params, cfg: AdamW(params, **_adam_options(cfg)),
}


def build_optimizer(model: Any, optim_cfg: CfgNode, param_groups: Any = None) -> Optimizer:
    """Build the optimizer that OPTIM.NAME names.

    Args:
        model: A module or an iterable of parameters. Parameters without gradient are not filtered out.
        optim_cfg: Section OPTIM of the config.
        param_groups: Parameter groups to use instead of the model's parameters.

    Raises:
        ValueError: If the name is unknown.
        TypeError: If OPTIM.STAGED_LR is set and `model` is not a module.
    """
    name = optim_cfg.NAME
    if name not in OPTIMIZERS:
        raise ValueError(f"OPTIM.NAME is {name!r}; expected one of {list(OPTIMIZERS)}")
    if param_groups is not None:
        if optim_cfg.STAGED_LR:
            warnings.warn("OPTIM.STAGED_LR is ignored because param_groups are given", stacklevel=2)
    elif optim_cfg.STAGED_LR:
        param_groups = _staged_groups(model, optim_cfg)
    else:
        param_groups = model.parameters() if isinstance(model, nn.Module) else model
    return OPTIMIZERS[name](param_groups, optim_cfg)


def _staged_groups(model: Any, cfg: CfgNode) -> list[dict[str, Any]]:
    """Return two parameter groups: children that are not in NEW_LAYERS, at a scaled rate, and those that are."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"OPTIM.STAGED_LR needs an nn.Module, not {type(model).__name__}")
    new_layers = [cfg.NEW_LAYERS] if isinstance(cfg.NEW_LAYERS, str) else list(cfg.NEW_LAYERS or ())
    if not new_layers:
        warnings.warn("OPTIM.STAGED_LR is set but OPTIM.NEW_LAYERS is empty: no layer is new", stacklevel=3)
    base: list[nn.Parameter] = []
    new: list[nn.Parameter] = []
    for name, child in unwrap(model).named_children():
        (new if name in new_layers else base).extend(child.parameters())
    return [{"params": base, "lr": cfg.LR * cfg.BASE_LR_MULT}, {"params": new}]
