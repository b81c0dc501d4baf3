"""Log of a run: metrics by epoch, pseudo-labels and curves, recorded by observers of the method."""

from __future__ import annotations

import csv
import io
import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from coft.core.files import replacing, write_table
from coft.core.sanitize import some_of
from coft.core.untrusted import MISSING, open_file, read_text
from coft.core.world import SINGLE_PROCESS, World
from coft.labelling.protocol import Observer
from coft.labelling.pseudo_labels import Predictions, PseudoLabels
from coft.report.image_facts import FOLDER as REPORT
from coft.report.image_facts import PEERS, write_peers

from .diagnostics import Diagnostics
from .records import STAGES, History, Row, plot_curves, results_table

log = logging.getLogger(__name__)
PSEUDO_LABELS = "pseudo_labels.csv"
ZERO_SHOT = "zero-shot"  # the stage of epoch 0
FILES = (  # result files, listed at the end of a run; those of the second line exist for a user's own images only
    "report.html",
    *("predictions.csv", "skipped.csv", "duplicates.csv"),
    *("summary.json", "pseudo_labels.csv", "curves.png", "metrics.csv", "log.txt"),
)


class RunLog(Observer):
    """Observer that records the metrics of a two-peer run and writes its files.

    Args:
        folder: Output folder of the run.
        paths: Paths of the image files, by index.
        classnames: C class names.
        diagnostics: Comparison with the known labels.
        started: Start time of the run, by time.monotonic().
        world: Processes of the run. The main process writes the files.
    """

    def __init__(
        self,
        folder: Path,
        paths: Sequence[str],
        classnames: Sequence[str],
        diagnostics: Diagnostics,
        started: float,
        world: World = SINGLE_PROCESS,
    ) -> None:
        self.world = world
        self.folder, self.started = folder, started
        self.paths, self.classnames, self.diagnostics = paths, classnames, diagnostics
        self.history = History(folder, folder, 0, world.is_main)
        self.numbers: dict[str, float] = {}
        self.epochs = 0  # number of epochs of the whole run; 0 if unknown

    def resume(self, epochs_done: int, folder: Path) -> None:
        """Continue from the metrics and labels of the first `epochs_done` epochs of an earlier part of the run.

        Args:
            epochs_done: Number of finished epochs.
            folder: Folder of the earlier part; usually that of this one.
        """
        self.history = History(self.folder, folder, epochs_done, self.world.is_main)
        if self.world.is_main and folder.resolve() != self.folder.resolve():
            copy_labels(folder, self.folder)
        if self.world.is_main:
            rename_images(self.folder / PSEUDO_LABELS, self.paths)
        self.started -= self.history.rows[-1].get("seconds", 0.0) if self.history.rows else 0.0

    # ---------------------------------------------------------------- rows

    def add(self, epoch: int, stage: str, **numbers: float) -> dict[str, float]:
        """Add a row: the given numbers, and those observed since the last row.

        Returns:
            All numbers of the row, without the seconds.
        """
        numbers |= self.numbers
        self.numbers = {}
        seconds = time.monotonic() - self.started
        self.history.add(epoch, stage, **numbers, seconds=round(seconds, 1))
        log.info("%s", epoch_line(stage, epoch, self.epochs, numbers, seconds))
        return numbers

    def before_training(self, **numbers: float) -> None:
        """Add numbers to the row of zero-shot CLIP. They can be measured later, as the frozen CLIP does not change."""
        self.history.amend(ZERO_SHOT, **numbers)
        log.info("[%s] %s", ZERO_SHOT, format_metrics(numbers))

    def results(self) -> dict[str, Row]:
        """Return the numbers of each stage, for the summary."""
        return {title: self.history.stage(stage) for stage, title in STAGES.items() if self.history.stage(stage)}

    def finish(self) -> None:
        """Draw the curves, and print the table of results and the paths of the result files."""
        plot_curves(self.history, self.folder / "curves.png")
        print(results_table(self.history))
        for name in FILES:
            if (self.folder / name).is_file():
                print(f"  {self.folder / name}")

    # ---------------------------------------------------------------- events of the method

    def seeds_chosen(self, seeds: PseudoLabels, label: Tensor, quotas: Tensor) -> None:
        """Record the precision of the seeds, and warn of classes with fewer seeds than wanted."""
        self.numbers |= {
            "kept": len(seeds.index),
            "of": len(label),
            "precision": self.diagnostics.accuracy(seeds.index, seeds.label),
            "pool_accuracy": self.diagnostics.accuracy(torch.arange(len(label)), label),
        }
        counts = torch.bincount(seeds.label, minlength=len(quotas))
        if without := self.names_of(counts == 0):
            log.warning("No seeds for: %s. CLIP predicts these classes for no image", some_of(without))
        if short := self.names_of((counts > 0) & (counts < quotas)):
            log.warning("Fewer seeds than wanted for: %s", some_of(short))

    def names_of(self, classes: Tensor) -> list[str]:
        """Return the names of the classes in a mask of shape (C,)."""
        return [self.classnames[c] for c in torch.nonzero(classes).flatten().tolist()]

    def seeds_filtered(self, seeds: Mapping[str, PseudoLabels]) -> None:
        """Record number, coverage and precision of the kept seeds."""
        kept = [labels.at(torch.nonzero(labels.keep).flatten()) for labels in seeds.values()]
        index, labels = torch.cat([s.index for s in kept]), torch.cat([s.label for s in kept])
        self.numbers |= {
            "kept": len(index),
            "of": sum(len(each.index) for each in seeds.values()),
            "coverage": len(index.unique()) / len(self.paths),
            "precision": self.diagnostics.accuracy(index, labels),
        }

    def labelled(
        self, predictions: Mapping[str, Predictions], labels: Mapping[str, PseudoLabels], sources: Mapping[str, str]
    ) -> None:
        """Record the quality of the pseudo-labels, averaged over the models, and write `pseudo_labels.csv`."""
        rows = [self.quality(predictions[sources[name]], each) for name, each in labels.items()]
        mean = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
        first, second = (each.label for each in predictions.values())
        self.numbers |= {**mean, "of": len(first), "disagreement": float((first != second).double().mean())}
        self.write_pseudo_labels(predictions, labels)
        write_peers(self.folder, {name: each.label for name, each in predictions.items()})

    # ---------------------------------------------------------------- numbers

    def quality(self, source: Predictions, labels: PseudoLabels) -> dict[str, float]:
        """Compute coverage, precision and recall of pseudo-labels, and AUROCs of scores for right against wrong ones.

        Args:
            source: Predictions of the model that gave the labels.
            labels: Pseudo-labels that one model is trained on.
        """
        index, label = torch.nonzero(labels.keep).flatten(), labels.label
        scores = {"p_clean": source.p_clean(label), "confidence": source.confidence, "margin": source.margin}
        return {
            "kept": len(index),
            "coverage": len(index) / len(label),
            "precision": self.diagnostics.accuracy(index, label[index]),
            "recall": self.diagnostics.recall(label, labels.keep),
            "mean_p_clean": float(scores["p_clean"].double().mean()),
            "pool_accuracy": self.diagnostics.accuracy(torch.arange(len(label)), label),
            **{f"auroc_{name}": self.diagnostics.auroc(score, label) for name, score in scores.items()},
        }

    def write_pseudo_labels(self, predictions: Mapping[str, Predictions], labels: Mapping[str, PseudoLabels]) -> None:
        """Write `pseudo_labels.csv`: the label of the more confident model, and the models that are trained on it."""
        first, second = predictions.values()
        label = torch.where(first.confidence >= second.confidence, first.label, second.label)
        columns = {"confidence": torch.maximum(first.confidence, second.confidence)}
        columns |= {f"p_clean_{name[-1]}": each.p_clean(label) for name, each in predictions.items()}
        table = pd.DataFrame({"path": list(self.paths), "class": [self.classnames[i] for i in label.tolist()]})
        for name, values in columns.items():
            table[name] = values.double().round(decimals=6).numpy()
        kept_for = {name: (each.keep & (each.label == label)).tolist() for name, each in labels.items()}
        flags = [[name if kept else "" for kept in keep] for name, keep in kept_for.items()]
        table["kept_for"] = ["+".join(filter(None, names)) for names in zip(*flags, strict=True)]
        write_table(table, self.folder / PSEUDO_LABELS)


def copy_labels(source: Path, target: Path) -> None:
    """Copy the files of the last labelling, if there are any, to the folder of another run."""
    for name in (PSEUDO_LABELS, f"{REPORT}/{PEERS}"):
        with suppress(FileNotFoundError):
            with open_file(source / name) as file:
                content = file.read()
            (target / name).parent.mkdir(exist_ok=True)
            with replacing(target / name) as draft:
                draft.write_bytes(content)


def rename_images(path: Path, names: Sequence[str]) -> None:
    """Replace the paths in a file of pseudo-labels by the images' present ones. Both have the order of the contents."""
    try:
        header, *rows = csv.reader(io.StringIO(read_text(path), newline=""))
    except MISSING:  # nothing has been labelled yet
        return
    column = header.index("path")
    if len(rows) != len(names) or [row[column] for row in rows] == list(names):
        return
    renamed = ([*row[:column], name, *row[column + 1 :]] for row, name in zip(rows, names, strict=True))
    with replacing(path) as draft, draft.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *renamed])


def epoch_line(stage: str, epoch: int, epochs: int, numbers: Mapping[str, float], seconds: float) -> str:
    """Return the log line of an epoch.

    Args:
        stage: Stage, as in `metrics.csv`.
        epoch: Number of finished epochs.
        epochs: Number of epochs of the run; 0 if unknown.
        numbers: Metrics of the epoch; may be empty.
        seconds: Seconds since the run began.
    """
    of = f" of {epochs}" if epochs else ""
    return f"[{stage}] epoch {epoch}{of}: {format_metrics({**numbers, 'seconds': round(seconds, 1)})}"


def format_metrics(numbers: Mapping[str, float]) -> str:
    """Return names and numbers on one line, without NaN entries."""
    shown = {key: f"{x:.4g}" if abs(x) < 1000 else f"{x:.0f}" for key, x in numbers.items() if not math.isnan(x)}
    return ", ".join(f"{key} {value}" for key, value in shown.items())


class SeedReport(Observer):
    """Observer that reports the precision of pseudo-labels.

    Args:
        diagnostics: Comparison with the known labels.
        results: Dictionary that receives the numbers for the summary.
    """

    def __init__(self, diagnostics: Diagnostics, results: dict[str, Any]) -> None:
        self.diagnostics, self.results = diagnostics, results

    def seeds_chosen(self, seeds: PseudoLabels, label: Tensor, quotas: Tensor) -> None:
        """Log the number of pseudo-labels and their precision, and note both for the summary."""
        right = self.diagnostics.accuracy(seeds.index, seeds.label)
        log.info("Pseudo-labels: %s", format_metrics({"number": len(seeds.label), "share of right ones": right}))
        self.results.update(pseudo_labels=len(seeds.label), pseudo_label_precision=right)

    def labelled(
        self, predictions: Mapping[str, Predictions], labels: Mapping[str, PseudoLabels], sources: Mapping[str, str]
    ) -> None:
        """Log number and precision of each model's pseudo-labels."""
        for name, each in labels.items():
            right = self.diagnostics.accuracy(each.index, each.label)
            log.info("%s: %s", name, format_metrics({"pseudo-labels": len(each.label), "share of right ones": right}))
