"""A fully trainable student and its EMA teacher."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from .classifier import Classifier


class Student(nn.Module):
    """A classifier that trains, with an exponential moving average of its weights.

    Args:
        model: The classifier.
        decay: Decay of the average; see `ramped_ema`.
    """

    def __init__(self, model: Classifier, decay: float) -> None:
        super().__init__()
        self.model = model
        self.average = AveragedModel(model, multi_avg_fn=ramped_ema(decay))
        self.average.requires_grad_(False)

    @property
    def teacher(self) -> Classifier:
        """The moving average, which labels images."""
        return cast(Classifier, self.average.module)

    def update(self) -> None:
        """Update the moving average after a step."""
        self.average.update_parameters(self.model)

    def train(self, mode: bool = True) -> Student:
        """Set training mode. The teacher stays in evaluation mode, and batch norms keep their statistics."""
        super().train(mode)
        self.average.eval()
        freeze_statistics(self)
        return self


def ramped_ema(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], int | Tensor], None]:
    """Return an EMA update whose decay ramps up: min(decay, (1 + n) / (10 + n)) after n steps. The first step copies.

    With a constant decay, the average after a run of a hundred steps would still be mostly the initial weights.

    Args:
        decay: Share of the old average in the long run.

    Returns:
        An averaging function for `AveragedModel`.
    """

    @torch.no_grad()
    def update(averages: Sequence[Tensor], values: Sequence[Tensor], steps: int | Tensor) -> None:
        weight = 1 - min(decay, (1 + int(steps)) / (10 + int(steps)))
        torch._foreach_lerp_(list(averages), list(values), weight)

    return update


def trainable_copy(encoder: nn.Module) -> nn.Module:
    """Copy an encoder and make all parameters trainable, except those named in the encoder's `stays_frozen`.

    Statistics of batch norms do not train either.
    """
    frozen = getattr(encoder, "stays_frozen", ())
    twin = copy.deepcopy(encoder)
    for name, parameter in twin.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return twin


def freeze_statistics(module: nn.Module) -> None:
    """Keep batch norms at the statistics of pre-training, also in training mode."""
    for child in module.modules():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            child.eval()
