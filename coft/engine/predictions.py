"""Predictions for images whose labels may be unknown: `predictions.csv`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from coft.core.files import write_or_remove, write_table
from coft.core.progress import bar, user_log
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


def write_skipped(folder: Path | None, broken: Sequence[tuple[str, str]]) -> None:
    """Warn of skipped files, and write `skipped.csv` with the reasons. If none was skipped, remove it instead.

    Args:
        folder: Output folder; None without one.
        broken: Path and problem of each skipped file.
    """
    if folder:
        write_or_remove(pd.DataFrame(broken, columns=["path", "problem"]), folder / "skipped.csv")
    if broken:
        where = f"see {folder / 'skipped.csv'}" if folder else f"such as {broken[0][0]} ({broken[0][1]})"
        log.warning("Skipped %s that cannot be read: %s", counted(len(broken), "file"), where)


def write_duplicates(folder: Path | None, digest_of: Mapping[str, str]) -> None:
    """Report the number of duplicates, and write `duplicates.csv` with the groups of images with the same content.

    Without duplicates, the file is removed.

    Args:
        folder: Output folder; None without one.
        digest_of: Digest of the content by the path of an image.
    """
    groups: dict[str, list[str]] = {}
    for path, digest in digest_of.items():
        groups.setdefault(digest, []).append(path)
    duplicates = [group for group in groups.values() if len(group) > 1]
    if folder:
        rows = [(str(number), path) for number, group in enumerate(duplicates, 1) for path in group]
        write_or_remove(pd.DataFrame(rows, columns=["group", "path"]), folder / "duplicates.csv")
    if duplicates:
        copies = counted(len(digest_of) - len(groups), "image is a copy", "images are copies")
        see = ": see duplicates.csv" if folder else ""
        user_log.info("%s of another one and not used in training%s", copies, see)
