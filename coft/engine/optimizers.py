"""Optimizers and schedules of a method's phases."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from coft.core.settings import shown
from coft.labelling.protocol import Tuning

Built = tuple[Optimizer, LRScheduler]
MakeOptimizer = Callable[[list[nn.Parameter]], Optimizer]
WEIGHT_DECAY = 5e-4


def light_optimizer(
    parameters: Iterable[nn.Parameter], lr: float = 0.03, momentum: float = 0.9, weight_decay: float = WEIGHT_DECAY
) -> Optimizer:
    """Build SGD for prompts and light modules."""
    return torch.optim.SGD(list(parameters), lr=lr, momentum=momentum, weight_decay=weight_decay)


def full_optimizer(student: nn.Module, rate: float, head_rate: float) -> Optimizer:
    """Build AdamW for full fine-tuning of encoder and heads.

    Args:
        student: Model to train.
        rate: Learning rate of `student.encoder`.
        head_rate: Learning rate of all other parameters, as a multiple of `rate`.
    """
    named = list(student.named_parameters())
    groups = [
        {"params": [p for name, p in named if name.startswith("encoder.") and p.requires_grad], "lr": rate},
        {"params": [p for name, p in named if not name.startswith("encoder.")], "lr": head_rate * rate},
    ]
    # The fused step reads and writes each weight once, which is three times as fast on a CPU.
    return torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, fused=True)


def build(student: nn.Module, tuning: Tuning, make_light: MakeOptimizer) -> Built:
    """Build a model's optimizer for a phase, and a cosine schedule over all its steps. Both are stepped per batch."""
    if tuning.rate is None:
        optimizer = make_light([p for p in student.parameters() if p.requires_grad])
    else:
        optimizer = full_optimizer(student, tuning.rate, tuning.head_rate)
    return optimizer, CosineAnnealingLR(optimizer, T_max=tuning.steps)


class PhasedOptimizer:
    """Optimizer that is replaced by a fresh one in each phase.

    Args:
        build: Factory for optimizer and schedule of a phase, called with its number at its start.
    """

    def __init__(self, build: Callable[[int], Built]) -> None:
        self._build = build
        self.enter(1)

    def enter(self, phase: int) -> None:
        """Begin a phase with a fresh optimizer."""
        self.phase = phase
        self.optimizer, self.scheduler = self._build(phase)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Parameter groups of the current optimizer."""
        return self.optimizer.param_groups

    def zero_grad(self) -> None:
        """Reset the gradients."""
        self.optimizer.zero_grad()

    def step(self) -> None:
        """Make one optimizer step."""
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the phase and the state of its optimizer."""
        return {"phase": self.phase, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Enter the saved phase and restore its optimizer. The model must have entered that phase before."""
        self.enter(state["phase"])
        self.optimizer.load_state_dict(state["optimizer"])


def check_restored(optimizer: torch.optim.Optimizer) -> None:
    """Check that the state of an optimizer fits its parameters. PyTorch itself would fail only at the next step.

    Raises:
        ValueError: If a learning rate is not a finite number of at least 0, or a state has another shape than its
            parameter.
    """
    for group in optimizer.param_groups:
        rate = group["lr"]
        if not isinstance(rate, (int, float)) or not 0 <= rate < math.inf:
            raise ValueError(f"the learning rate of an optimizer is {shown(rate)}")
        for parameter in group["params"]:
            for name, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor) and value.dim() and value.shape != parameter.shape:
                    raise ValueError(f"{name} of an optimizer is of shape {tuple(value.shape)}")


class PhasedScheduler:
    """Learning rate schedule of the phase that a `PhasedOptimizer` is in."""

    def __init__(self, optimizer: PhasedOptimizer) -> None:
        self._optimizer = optimizer

    def step(self) -> None:
        """Step the current schedule."""
        self._optimizer.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the current schedule."""
        return self._optimizer.scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the schedule, after the optimizer has entered its phase."""
        self._optimizer.scheduler.load_state_dict(state)
