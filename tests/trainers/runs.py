"""Helpers for tests of runs: short settings, interrupted runs, and the files of a run."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]  # type of the fixtures `run`, `trained` and `configure`
QUICK = [
    *("TRAINER.COFT.SEEDS_PER_CLASS", "2", "TRAINER.COFT.PHASE1.EPOCHS", "1", "TRAINER.COFT.PHASE1.MIN_STEPS", "2"),
    *("TRAINER.COFT.PHASE2.EPOCHS", "1", "DATALOADER.NUM_WORKERS", "0"),
    *("OPTIM.NAME", "sgd", "OPTIM.LR", "0.01"),
]


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_metrics(trainer: Any) -> list[dict[str, str]]:
    """Rows of metrics.csv without the seconds."""
    rows = read_rows(Path(trainer.output_dir) / "metrics.csv")
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def read_summary(trainer: Any) -> dict[str, Any]:
    """The content of summary.json."""
    return json.loads((Path(trainer.output_dir) / "summary.json").read_text())


def call_in(trainer: Any, epoch: int, action: Callable[[], Any]) -> None:
    """Call a function after the first step of an epoch."""
    step = trainer.forward_backward

    def step_and_call(batch: Any) -> Any:
        losses = step(batch)
        if trainer.epoch == epoch:
            action()
        return losses

    trainer.forward_backward = step_and_call


def train_until(trainer: Any, epoch: int) -> None:
    """Train until the first step of an epoch, and interrupt the run there."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    call_in(trainer, epoch, interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()


def assert_true_labels(trainer: Any, labels: list[int]) -> None:
    """Compare labels by index with the classes in the file names."""
    for path, label in zip(trainer.images.pool.paths, labels, strict=True):
        assert Path(path).name.startswith(f"train_{label}_")
