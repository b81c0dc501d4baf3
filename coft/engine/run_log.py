"""What a run leaves for people to read: numbers by epoch, pseudo-labels, curves. It watches the method."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coft.core.sanitize import some_of
from coft.core.world import ALONE, World
from coft.labelling.protocol import Observer
from coft.labelling.pseudo_labels import Predictions, PseudoLabels
from coft.report.image_facts import write_peers

from .diagnostics import Diagnostics
from .records import STAGES, History, Row, plot_curves, results_table, write_pseudo_labels

log = logging.getLogger(__name__)
ZERO_SHOT = "zero-shot"  # the stage of epoch 0
FILES = (  # what a run leaves for people to read; those of the second line are of a user's own images
    "report.html",
    *("predictions.csv", "skipped.csv", "duplicates.csv"),
    *("summary.json", "pseudo_labels.csv", "curves.png", "metrics.csv", "log.txt"),
)


class RunLog(Observer):
    """Keeps the numbers of a run and writes its files.

    Args:
        folder: Of the run.
        paths: Image files, by index.
        classnames: C names.
        diagnostics: What knows the right labels.
        started: When the run began, by time.monotonic().
        world: The processes of the run; one of them writes the files.
    """

    def __init__(
        self,
        folder: Path,
        paths: Sequence[str],
        classnames: Sequence[str],
        diagnostics: Diagnostics,
        started: float,
        world: World = ALONE,
    ) -> None:
        self.world = world
        self.folder, self.started = folder, started
        self.paths, self.classnames, self.diagnostics = paths, classnames, diagnostics
        self.history = History(folder, folder, 0, world.writes)
        self.numbers: dict[str, float] = {}
        self.epochs = 0  # of the whole run, where that is known

    def resume(self, epochs_done: int, folder: Path) -> None:
        """Go on from the numbers that an earlier part of the run has left in a folder."""
        self.history = History(self.folder, folder, epochs_done, self.world.writes)
        self.started -= self.history.rows[-1].get("seconds", 0.0) if self.history.rows else 0.0

    # ---------------------------------------------------------------- rows

    def add(self, epoch: int, stage: str, **numbers: float) -> dict[str, float]:
        """Add a row: some numbers, and those that came since the last row.

        Returns:
            All of them.
        """
        numbers |= self.numbers
        self.numbers = {}
        seconds = time.monotonic() - self.started
        self.history.add(epoch, stage, **numbers, seconds=round(seconds, 1))
        log.info("%s", epoch_line(stage, epoch, self.epochs, numbers, seconds))
        return numbers

    def before_training(self, **numbers: float) -> None:
        """Add numbers to the row of zero-shot CLIP, which need not be measured first: it does not change."""
        self.history.amend(ZERO_SHOT, **numbers)
        log.info("[%s] %s", ZERO_SHOT, in_words(numbers))

    def results(self) -> dict[str, Row]:
        """Numbers of each stage, for the summary."""
        return {title: self.history.stage(stage) for stage, title in STAGES.items() if self.history.stage(stage)}

    def finish(self) -> None:
        """Draw the curves and show the table."""
        plot_curves(self.history, self.folder / "curves.png")
        print(results_table(self.history))
        for name in FILES:
            if (self.folder / name).is_file():
                print(f"  {self.folder / name}")

    # ---------------------------------------------------------------- what the method does

    def seeds_chosen(self, seeds: PseudoLabels, label: Tensor, quotas: Tensor) -> None:
        """Count the right ones, and name the classes that are short of seeds."""
        self.numbers |= {
            "kept": len(seeds.index),
            "of": len(label),
            "precision": self.diagnostics.accuracy(seeds.index, seeds.label),
            "pool_accuracy": self.diagnostics.accuracy(torch.arange(len(label)), label),
            "pool_cluster_accuracy": self.diagnostics.cluster_accuracy(label),
        }
        counts = torch.bincount(seeds.label, minlength=len(quotas))
        if without := self.names_of(counts == 0):
            log.warning("No seed for: %s. CLIP sees no image as one of these", some_of(without))
        if short := self.names_of((counts > 0) & (counts < quotas)):
            log.warning("Fewer seeds than wanted for: %s", some_of(short))

    def names_of(self, classes: Tensor) -> list[str]:
        """Names of the classes of a mask, shape (C,)."""
        return [self.classnames[c] for c in torch.nonzero(classes).flatten().tolist()]

    def seeds_filtered(self, seeds: Mapping[str, PseudoLabels]) -> None:
        """Count the kept seeds."""
        kept = [labels.at(torch.nonzero(labels.keep).flatten()) for labels in seeds.values()]
        index, labels = torch.cat([s.index for s in kept]), torch.cat([s.label for s in kept])
        self.numbers |= {
            "kept": len(index),
            "of": sum(len(each.index) for each in seeds.values()),
            "coverage": len(index) / len(self.paths),
            "precision": self.diagnostics.accuracy(index, labels),
        }

    def labelled(
        self, predictions: Mapping[str, Predictions], labels: Mapping[str, PseudoLabels], sources: Mapping[str, str]
    ) -> None:
        """Measure what tells right from wrong labels, averaged over the models; write pseudo_labels.csv."""
        rows = [self.quality(predictions[sources[name]], predictions, each) for name, each in labels.items()]
        mean = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
        first, second = (each.label for each in predictions.values())
        self.numbers |= {**mean, "of": len(first), "disagreement": float((first != second).double().mean())}
        self.write_pseudo_labels(predictions, labels)
        write_peers(self.folder, {name: each.label for name, each in predictions.items()})

    # ---------------------------------------------------------------- numbers

    def quality(
        self, source: Predictions, predictions: Mapping[str, Predictions], labels: PseudoLabels
    ) -> dict[str, float]:
        """Coverage, precision and recall of pseudo-labels, and AUROCs of scores that may tell right from wrong ones.

        Args:
            source: Who labelled.
            predictions: Of all models.
            labels: What one is trained on.
        """
        index, both, label = torch.nonzero(labels.keep).flatten(), list(predictions.values()), labels.label
        scores = {  # of the model that labels alone, then of both
            "p_clean": source.p_clean(label),
            "confidence": source.confidence,
            "margin": source.margin,
            "p_clean_both": torch.stack([each.p_clean(label) for each in both]).sum(dim=0),
            "confidence_both": torch.stack([each.probability_of(label) for each in both]).sum(dim=0),
        }
        return {
            "kept": len(index),
            "coverage": len(index) / len(label),
            "precision": self.diagnostics.accuracy(index, label[index]),
            "recall": self.diagnostics.recall(label, labels.keep),
            "mean_p_clean": float(scores["p_clean"].double().mean()),
            "pool_accuracy": self.diagnostics.accuracy(torch.arange(len(label)), label),
            "pool_cluster_accuracy": self.diagnostics.cluster_accuracy(label),
            **{f"auroc_{name}": self.diagnostics.auroc(score, label) for name, score in scores.items()},
        }

    def write_pseudo_labels(self, predictions: Mapping[str, Predictions], labels: Mapping[str, PseudoLabels]) -> None:
        """Write `pseudo_labels.csv`: the label of the surer model, and which models are trained on it."""
        first, second = predictions.values()
        label = torch.where(first.confidence >= second.confidence, first.label, second.label)
        columns = {"confidence": torch.maximum(first.confidence, second.confidence)}
        columns |= {f"p_clean_{name[-1]}": each.p_clean(label) for name, each in predictions.items()}
        kept_for = {name: each.keep & (each.label == label) for name, each in labels.items()}
        path = self.folder / "pseudo_labels.csv"
        write_pseudo_labels(path, self.paths, self.classnames, label, columns, kept_for)


def epoch_line(stage: str, epoch: int, epochs: int, numbers: Mapping[str, float], seconds: float) -> str:
    """What is said of an epoch, on a line.

    Args:
        stage: As in `metrics.csv`.
        epoch: How many are done.
        epochs: How many there are; 0 where that is not known.
        numbers: Of the epoch. Not every epoch has some.
        seconds: Since the run began.
    """
    of = f" of {epochs}" if epochs else ""
    return f"[{stage}] epoch {epoch}{of}: {in_words({**numbers, 'seconds': round(seconds, 1)})}"


def in_words(numbers: Mapping[str, float]) -> str:
    """Numbers on a line; those that are none are left out."""
    shown = {key: f"{x:.4g}" if abs(x) < 1000 else f"{x:.0f}" for key, x in numbers.items() if not math.isnan(x)}
    return ", ".join(f"{key} {value}" for key, value in shown.items())


class SeedReport(Observer):
    """Counts pseudo-labels that are right.

    Args:
        diagnostics: What knows the right labels.
        results: Where numbers for the summary are put.
    """

    def __init__(self, diagnostics: Diagnostics, results: dict[str, Any] | None = None) -> None:
        self.diagnostics = diagnostics
        self.results = {} if results is None else results

    def seeds_chosen(self, seeds: PseudoLabels, label: Tensor, quotas: Tensor) -> None:
        """Count them, and those that are right."""
        right = self.diagnostics.accuracy(seeds.index, seeds.label)
        log.info("Pseudo-labels: %s", in_words({"number": len(seeds.label), "share of right ones": right}))
        self.results.update(pseudo_labels=len(seeds.label), pseudo_label_precision=right)

    def labelled(
        self, predictions: Mapping[str, Predictions], labels: Mapping[str, PseudoLabels], sources: Mapping[str, str]
    ) -> None:
        """Log how many are right."""
        for name, each in labels.items():
            right = self.diagnostics.accuracy(each.index, each.label)
            log.info("%s: %s", name, in_words({"pseudo-labels": len(each.label), "share of right ones": right}))
