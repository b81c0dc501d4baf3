"""What tests of runs share: short settings, stops within an epoch, and what a run has written."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

QUICK = [
    *("TRAINER.COFT.SEEDS_PER_CLASS", "2", "TRAINER.COFT.PHASE1.EPOCHS", "1", "TRAINER.COFT.PHASE1.MIN_STEPS", "2"),
    *("TRAINER.COFT.PHASE2.EPOCHS", "1", "DATALOADER.NUM_WORKERS", "0"),
    *("OPTIM.NAME", "sgd", "OPTIM.LR", "0.01"),
]


def rows(folder: Path) -> list[dict[str, str]]:
    """What metrics.csv has, but the seconds."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def stop_in(trainer: Any, epoch: int, how: Callable[[], Any]) -> None:
    """Do something after the first step of an epoch."""
    step = trainer.forward_backward

    def stopping(batch: Any) -> Any:
        losses = step(batch)
        if trainer.epoch == epoch:
            how()
        return losses

    trainer.forward_backward = stopping


def assert_true(trainer: Any, labels: list[int]) -> None:
    """Compare labels by index with those that the names of the files tell."""
    for path, label in zip(trainer.images.pool.paths, labels, strict=True):
        assert Path(path).name.startswith(f"train_{label}_")
