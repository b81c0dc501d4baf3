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
    """SGD, for prompts and light modules."""
    return torch.optim.SGD(list(parameters), lr=lr, momentum=momentum, weight_decay=weight_decay)


def full_optimizer(student: nn.Module, rate: float, head_rate: float) -> Optimizer:
    """AdamW for what trains in encoder and heads.

    Args:
        student: What trains.
        rate: Learning rate of `student.encoder`.
        head_rate: Learning rate of all else over that of the encoder.
    """
    named = list(student.named_parameters())
    groups = [
        {"params": [p for name, p in named if name.startswith("encoder.") and p.requires_grad], "lr": rate},
        {"params": [p for name, p in named if not name.startswith("encoder.")], "lr": head_rate * rate},
    ]
    # Fused: a step reads and writes each weight once, which on a CPU is three times as fast.
    return torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, fused=True)


def build(student: nn.Module, tuning: Tuning, make_light: MakeOptimizer) -> Built:
    """Optimizer of a model for a phase, and a cosine over all its steps, both stepped once a batch."""
    if tuning.rate is None:
        optimizer = make_light([p for p in student.parameters() if p.requires_grad])
    else:
        optimizer = full_optimizer(student, tuning.rate, tuning.head_rate)
    return optimizer, CosineAnnealingLR(optimizer, T_max=tuning.steps)


class PhasedOptimizer:
    """An optimizer that is another one in each phase.

    Args:
        build: Makes optimizer and schedule of a phase from the weights as they are at its start.
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
        """Parameter groups of the present optimizer."""
        return self.optimizer.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear gradients."""
        self.optimizer.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        """Make one step."""
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """The phase and the state of its optimizer."""
        return {"phase": self.phase, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Enter the saved phase and restore its optimizer. The model must have entered it before."""
        self.enter(state["phase"])
        self.optimizer.load_state_dict(state["optimizer"])


def check_restored(optimizer: torch.optim.Optimizer) -> None:
    """See that the state of an optimizer fits its parameters, which PyTorch finds out at the next step.

    Raises:
        ValueError: If it does not.
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
    """The schedule of whatever phase its optimizer is in."""

    def __init__(self, optimizer: PhasedOptimizer) -> None:
        self._optimizer = optimizer

    def step(self) -> None:
        """Make one step."""
        self._optimizer.scheduler.step()

    def get_last_lr(self) -> list[Any]:
        """Learning rate of each group."""
        return self._optimizer.scheduler.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """The state of the present schedule."""
        return self._optimizer.scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the schedule, after the optimizer has entered its phase."""
        self._optimizer.scheduler.load_state_dict(state)
