"""Trainers, and the meters and the writer that plugins import from this module."""

from typing import Any

from ..utils.meters import AverageMeter, MetricMeter
from .base import TrainerBase
from .loops import TrainerX, TrainerXU
from .simple import SimpleTrainer

__all__ = [
    "AverageMeter",
    "MetricMeter",
    "SimpleTrainer",
    "SummaryWriter",  # noqa: F822 (found by __getattr__)
    "TrainerBase",
    "TrainerX",
    "TrainerXU",
]


def __getattr__(name: str) -> Any:
    if name == "SummaryWriter":  # TensorBoard is imported on use only
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
