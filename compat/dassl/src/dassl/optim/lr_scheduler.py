"""Learning rate schedules by name, stepped once per epoch, with an optional warm-up."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, StepLR
from yacs.config import CfgNode

SCHEDULES = ["single_step", "multi_step", "cosine"]
WARMUPS = ["linear", "constant"]


class _Warmup(LRScheduler):
    """A warm-up that is followed by another schedule.

    Args:
        optimizer: Optimizer whose rate is scheduled.
        successor: Schedule that follows, starting at its initial rate.
        warmup_epoch: Number of warm-up epochs.
    """

    def __init__(self, optimizer: Optimizer, successor: LRScheduler, warmup_epoch: int) -> None:
        self.successor = successor
        self.warmup_epoch = warmup_epoch
        super().__init__(optimizer)

    def warmup_lr(self) -> list[Any]:
        """Return the rate of each group during warm-up."""
        raise NotImplementedError

    def get_lr(self) -> list[Any]:
        """Return the rate of each group: that of the warm-up, or the successor's after it."""
        return self.successor.get_last_lr() if self.last_epoch >= self.warmup_epoch else self.warmup_lr()

    def step(self, epoch: int | None = None) -> None:
        """Advance by one epoch."""
        if self.last_epoch < self.warmup_epoch:
            super().step(epoch)
        else:
            self.successor.step(epoch)
            self._last_lr = self.successor.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain numbers: the successor is stored as its state, not as an object."""
        return {**super().state_dict(), "successor": self.successor.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state. The optimizer remains the one that this schedule was built with."""
        state = {key: value for key, value in state_dict.items() if key not in ("successor", "optimizer")}
        super().load_state_dict(state)
        self.successor.load_state_dict(state_dict["successor"])


class ConstantWarmupScheduler(_Warmup):
    """Warm-up at a constant rate `cons_lr`."""

    def __init__(self, optimizer: Optimizer, successor: LRScheduler, warmup_epoch: int, cons_lr: float) -> None:
        self.cons_lr = cons_lr
        super().__init__(optimizer, successor, warmup_epoch)

    def warmup_lr(self) -> list[Any]:
        """Return the constant rate for each group."""
        return [self.cons_lr for _ in self.base_lrs]


class LinearWarmupScheduler(_Warmup):
    """Warm-up at `min_lr` in the first epoch, then at base_lr * epoch / warmup_epoch."""

    def __init__(self, optimizer: Optimizer, successor: LRScheduler, warmup_epoch: int, min_lr: float) -> None:
        self.min_lr = min_lr
        super().__init__(optimizer, successor, warmup_epoch)

    def warmup_lr(self) -> list[Any]:
        """Return the rate of the ramp for each group."""
        if self.last_epoch == 0:
            return [self.min_lr for _ in self.base_lrs]
        return [lr * self.last_epoch / self.warmup_epoch for lr in self.base_lrs]


def build_lr_scheduler(optimizer: Optimizer, optim_cfg: CfgNode) -> LRScheduler:
    """Build the schedule that OPTIM.LR_SCHEDULER names, after a warm-up if OPTIM.WARMUP_EPOCH > 0.

    Args:
        optimizer: Optimizer whose rate is scheduled.
        optim_cfg: Section OPTIM of the config.

    Raises:
        ValueError: If a name is unknown.
        TypeError: If OPTIM.STEPSIZE does not fit the schedule.
    """
    schedule = _build_schedule(optimizer, optim_cfg)
    if optim_cfg.WARMUP_EPOCH <= 0:
        return schedule
    if not optim_cfg.WARMUP_RECOUNT:
        schedule.last_epoch = optim_cfg.WARMUP_EPOCH
    if optim_cfg.WARMUP_TYPE == "constant":
        return ConstantWarmupScheduler(optimizer, schedule, optim_cfg.WARMUP_EPOCH, cons_lr=optim_cfg.WARMUP_CONS_LR)
    if optim_cfg.WARMUP_TYPE == "linear":
        return LinearWarmupScheduler(optimizer, schedule, optim_cfg.WARMUP_EPOCH, min_lr=optim_cfg.WARMUP_MIN_LR)
    raise ValueError(f"OPTIM.WARMUP_TYPE is {optim_cfg.WARMUP_TYPE!r}; expected one of {WARMUPS}")


def _build_schedule(optimizer: Optimizer, cfg: CfgNode) -> LRScheduler:
    if cfg.LR_SCHEDULER == "single_step":
        return StepLR(optimizer, step_size=_single_stepsize(cfg), gamma=cfg.GAMMA)
    if cfg.LR_SCHEDULER == "multi_step":
        if not isinstance(cfg.STEPSIZE, (list, tuple)):
            raise TypeError(f"OPTIM.STEPSIZE is {cfg.STEPSIZE!r}; multi_step expects a list of epochs")
        return MultiStepLR(optimizer, milestones=list(cfg.STEPSIZE), gamma=cfg.GAMMA)
    if cfg.LR_SCHEDULER == "cosine":
        return CosineAnnealingLR(optimizer, T_max=cfg.MAX_EPOCH)
    raise ValueError(f"OPTIM.LR_SCHEDULER is {cfg.LR_SCHEDULER!r}; expected one of {SCHEDULES}")


def _single_stepsize(cfg: CfgNode) -> int:
    stepsize = cfg.STEPSIZE[-1] if isinstance(cfg.STEPSIZE, (list, tuple)) else cfg.STEPSIZE
    if not isinstance(stepsize, int):
        raise TypeError(f"OPTIM.STEPSIZE is {cfg.STEPSIZE!r}; single_step expects a whole number of epochs")
    return stepsize if stepsize > 0 else cfg.MAX_EPOCH
