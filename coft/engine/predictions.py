"""What a trainer makes of images whose labels nobody may know: `predictions.csv`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from coft.core.files import CSV_END, write_table
from coft.core.progress import bar
from coft.core.threads import one_ahead
from coft.core.words import counted

log = logging.getLogger(__name__)


@torch.no_grad()
def predict(trainer: Any, loader: Iterable[Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Predict images as the test sees them.

    Args:
        trainer: A Dassl trainer; its mode is set to evaluation.
        loader: Batches with images and labels.

    Returns:
        Predicted labels, their probabilities, and the labels that the data set has, each of shape (N,), on the CPU.
    """
    trainer.set_model_mode("eval")
    rows = [(torch.empty(0, dtype=torch.long), torch.empty(0), torch.empty(0, dtype=torch.long))]
    for batch in one_ahead(iter(bar(loader, "predict images"))):
        image, label = trainer.parse_batch_test(batch)
        confidence, predicted = trainer.model_inference(image).float().softmax(dim=1).max(dim=1)
        rows.append((predicted.cpu(), confidence.cpu(), label.cpu()))
    predicted, confidence, label = (torch.cat(column) for column in zip(*rows, strict=True))
    return predicted, confidence, label


def known_accuracy(predicted: Tensor, label: Tensor) -> float | None:
    """Share of right predictions in percent, among images whose label is known (not negative); None without any."""
    has_label = label >= 0
    return 100 * float((predicted == label)[has_label].double().mean()) if has_label.any() else None


def write_predictions(
    path: Path, paths: Sequence[str], classnames: Sequence[str], predicted: Tensor, confidence: Tensor
) -> None:
    """Write path, class and confidence of each image.

    Args:
        path: The CSV file.
        paths: Image files.
        classnames: Names by label.
        predicted: Labels. Shape (N,).
        confidence: Their probabilities. Shape (N,).
    """
    columns = {"path": paths, "class": [classnames[label] for label in predicted.tolist()], "confidence": confidence}
    write_table(pd.DataFrame(columns), path, float_format="%.6f", lineterminator=CSV_END)


def count_by_class(classnames: Sequence[str], predicted: Tensor) -> str:
    """How many images were given each class, the most frequent first, in a line."""
    counts = torch.bincount(predicted, minlength=len(classnames))
    order = torch.sort(counts, descending=True, stable=True).indices.tolist()
    shown = ", ".join(f"{classnames[label]} {int(counts[label])}" for label in order[:10])
    return shown + (f" and {counted(len(order) - 10, 'class', 'classes')} more" if len(order) > 10 else "")


def write_skipped(path: Path, broken: Sequence[tuple[str, str]]) -> None:
    """Write which files were left out, and why; without any, no such file is left.

    Args:
        path: The CSV file.
        broken: Path and problem of each.
    """
    write_rows(path, ["path", "problem"], broken)
    if broken:
        log.warning("Skipped %s that cannot be read: see %s", counted(len(broken), "file"), path)


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table of paths; one without rows is removed."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    write_table(pd.DataFrame(rows, columns=list(header)), path, lineterminator=CSV_END)
