"""Predictions for images whose labels may be unknown: `predictions.csv`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from coft.core.files import write_table
from coft.core.progress import bar
from coft.core.threads import prefetch
from coft.core.words import counted

log = logging.getLogger(__name__)


@torch.no_grad()
def predict(trainer: Any, loader: Iterable[Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Predict the classes of images, with the preprocessing of the test.

    Args:
        trainer: Dassl trainer. It is set to evaluation mode.
        loader: Batches with images and labels.

    Returns:
        Predicted labels, their probabilities, and the labels of the data set. Shape (N,) each, on the CPU.
    """
    trainer.set_model_mode("eval")
    rows = [(torch.empty(0, dtype=torch.long), torch.empty(0), torch.empty(0, dtype=torch.long))]
    for batch in prefetch(iter(bar(loader, "predict images"))):
        image, label = trainer.parse_batch_test(batch)
        confidence, predicted = trainer.model_inference(image).float().softmax(dim=1).max(dim=1)
        rows.append((predicted.cpu(), confidence.cpu(), label.cpu()))
    predicted, confidence, label = (torch.cat(column) for column in zip(*rows, strict=True))
    return predicted, confidence, label


def known_accuracy(predicted: Tensor, label: Tensor) -> float | None:
    """Return the accuracy (percent) over the images whose label is known (not negative); None if there are none."""
    has_label = label >= 0
    return 100 * float((predicted == label)[has_label].double().mean()) if has_label.any() else None


def write_predictions(
    path: Path, paths: Sequence[str | int], classes: Sequence[str], confidence: Sequence[float]
) -> None:
    """Write the CSV file of each image's path (or number), predicted class and confidence."""
    columns = {"path": paths, "class": classes, "confidence": confidence}
    write_table(pd.DataFrame(columns), path, float_format="%.6f")


def count_by_class(classnames: Sequence[str], predicted: Tensor) -> str:
    """Return one line with the number of images per predicted class, the most frequent ten classes first."""
    counts = torch.bincount(predicted, minlength=len(classnames))
    order = torch.sort(counts, descending=True, stable=True).indices.tolist()
    shown = ", ".join(f"{classnames[label]} {int(counts[label])}" for label in order[:10])
    return shown + (f" and {counted(len(order) - 10, 'class', 'classes')} more" if len(order) > 10 else "")


def write_skipped(path: Path, broken: Sequence[tuple[str, str]]) -> None:
    """Write the list of skipped files with the reasons. If none was skipped, remove the CSV file instead.

    Args:
        path: The CSV file.
        broken: Path and problem of each skipped file.
    """
    write_rows(path, ["path", "problem"], broken)
    if broken:
        log.warning("Skipped %s that cannot be read: see %s", counted(len(broken), "file"), path)


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write rows as CSV. If there are none, remove the file instead."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    write_table(pd.DataFrame(rows, columns=list(header)), path)
