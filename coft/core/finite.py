"""Checks for NaN and infinity, which must never be saved, tested or reported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .errors import UserError

DIVERGED = "training has diverged; lower OPTIM.LR, or check for settings or images that overflow"


def first_not_finite(tensors: Mapping[str, Any]) -> str:
    """Return the name of the first tensor with a NaN or infinite value; empty if all are finite."""
    for name, value in tensors.items():
        # A sum is fast to compute and propagates NaN and infinity, but a sum of finite values may overflow.
        if isinstance(value, Tensor) and not value.sum().isfinite() and not value.isfinite().all():
            return name
    return ""


def check_finite(tensors: Mapping[str, Any], source: str, remedy: str) -> None:
    """Check that all tensors are finite.

    Args:
        tensors: Tensors by name.
        source: The file or setting that they come from, for the error message.
        remedy: Advice for the error message.

    Raises:
        UserError: If one is not; the message names the source and the tensor.
    """
    if name := first_not_finite(tensors):
        raise UserError(f"{source}: {name} has values that are not finite (NaN or infinite); {remedy}")


def check_models(models: Mapping[str, nn.Module], source: str, remedy: str = DIVERGED) -> None:
    """Check that all weights of some models are finite; see `check_finite`."""
    for name, model in models.items():
        check_finite({f"{name}.{key}": x for key, x in model.state_dict().items()}, source, remedy)


def check_predictions(values: Tensor, remedy: str = "take PREC fp32, or another backbone") -> None:
    """Check that predictions have no NaN.

    Args:
        values: Probabilities, logits or log-probabilities, which may be minus infinity. Shape (n, C).
        remedy: Advice for the error message.

    Raises:
        UserError: If there is a NaN.
    """
    if bool(torch.isnan(values).any()):
        raise UserError(
            f"predictions are not finite (NaN): the model or the precision overflows on these images; {remedy}"
        )
