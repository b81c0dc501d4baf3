"""CoFT's numbers by epoch: precision, coverage and disagreement of the peers, and the files made of them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coft.method.lessons import Targets
from coft.method.pseudo_labels import Lesson, Opinion
from coft.runtime.diagnostics import Diagnostics
from coft.runtime.report import STAGES, History, Row, plot_curves, results_table, write_pseudo_labels

log = logging.getLogger(__name__)
MIN_DISAGREEMENT = 0.02
FILES = (  # what a run leaves for people to read; the first two are of a user's own images
    *("predictions.csv", "skipped.csv"),
    *("summary.json", "pseudo_labels.csv", "curves.png", "metrics.csv", "log.txt"),
)


class PeerLog:
    """Keeps the history of a run and writes its artefacts.

    Args:
        cfg: OUTPUT_DIR and RESUME are read.
        start_epoch: Epochs that an earlier part of the run has done.
        started: When the run began, by time.monotonic().
    """

    def __init__(self, cfg: Any, start_epoch: int, started: float) -> None:
        self.folder = Path(cfg.OUTPUT_DIR)
        self.history = History(self.folder, Path(cfg.RESUME or cfg.OUTPUT_DIR), start_epoch)
        earlier = self.history.rows[-1].get("seconds", 0.0) if self.history.rows else 0.0
        self._started = started - earlier
        self._warned = False

    def add(self, epoch: int, stage: str, **numbers: float) -> None:
        """Add the numbers of an epoch."""
        self.history.add(epoch, stage, **numbers, seconds=round(time.monotonic() - self._started, 1))
        shown = ", ".join(f"{key} {_short(value)}" for key, value in numbers.items() if not math.isnan(value))
        log.info("[%s] epoch %d: %s", stage, epoch, shown)

    def seeds(
        self,
        targets: Mapping[str, Targets],
        guesses: Sequence[Tensor],
        diagnostics: Diagnostics,
        pool_size: int,
    ) -> dict[str, float]:
        """Numbers of Phase I: the kept seeds, and how much the peers disagree in their guesses of other images."""
        ranks = torch.cat([t.ranks[t.weight > 0.5] for t in targets.values()])
        labels = torch.cat([t.labels[t.weight > 0.5] for t in targets.values()])
        of = sum(len(t.ranks) for t in targets.values())
        return {
            "kept": len(ranks),
            "of": of,
            "coverage": len(ranks) / pool_size,
            "precision": diagnostics.accuracy(ranks, labels),
            "separation": sum(t.separation for t in targets.values()) / len(targets),
            "disagreement": self._disagreement(*guesses),
        }

    def lessons(
        self,
        opinions: Mapping[str, Opinion],
        lessons: Mapping[str, Lesson],
        labelled_by: Mapping[str, str],
        diagnostics: Diagnostics,
    ) -> dict[str, float]:
        """Numbers of Phase II, averaged over the peers: kept labels, and what tells right from wrong ones.

        Args:
            opinions: Of each peer.
            lessons: What each peer is taught.
            labelled_by: Who made the labels that each peer is taught.
            diagnostics: What knows the right labels.
        """
        teachers = {name: opinions[teacher] for name, teacher in labelled_by.items()}
        both = list(opinions.values())
        rows = [_lesson_numbers(teachers[name], both, lesson, diagnostics) for name, lesson in lessons.items()]
        mean = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
        first, second = (o.labels for o in opinions.values())
        return {**mean, "of": len(first), "disagreement": self._disagreement(first, second)}

    def _disagreement(self, first: Tensor, second: Tensor) -> float:
        share = float((first != second).double().mean())
        if share < MIN_DISAGREEMENT and not self._warned:
            self._warned = True  # once: where nearly all is right, nothing is wrong with it
            log.warning(
                "The peers disagree on %.1f %% of the images only. Where nearly all labels are right, that is as it "
                "should be; elsewhere neither can tell where the other errs",
                100 * share,
            )
        return share

    def write_pseudo_labels(
        self,
        paths: Sequence[str],
        classnames: Sequence[str],
        opinions: Mapping[str, Opinion],
        lessons: Mapping[str, Lesson],
    ) -> None:
        """Write `pseudo_labels.csv`: the label of the surer peer, and which peers are taught it."""
        first, second = opinions.values()
        labels = torch.where(first.confidence >= second.confidence, first.labels, second.labels)
        columns = {"confidence": torch.maximum(first.confidence, second.confidence)}
        columns |= {f"p_clean_{name[-1]}": o.clean_at(labels) for name, o in opinions.items()}
        kept_for = {name: lesson.keep & (lesson.labels == labels) for name, lesson in lessons.items()}
        write_pseudo_labels(self.folder / "pseudo_labels.csv", paths, classnames, labels, columns, kept_for)

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


def _short(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def _lesson_numbers(
    teacher: Opinion, both: Sequence[Opinion], lesson: Lesson, diagnostics: Diagnostics
) -> dict[str, float]:
    ranks = torch.nonzero(lesson.keep).flatten()
    labels = lesson.labels
    scores = {  # of the peer that labels alone, then of both
        "p_clean": teacher.clean_at(labels),
        "confidence": teacher.confidence,
        "margin": teacher.margin,
        "p_clean_both": torch.stack([opinion.clean_at(labels) for opinion in both]).sum(dim=0),
        "confidence_both": torch.stack([opinion.probability_of(labels) for opinion in both]).sum(dim=0),
    }
    return {
        "kept": len(ranks),
        "coverage": len(ranks) / len(lesson.keep),
        "precision": diagnostics.accuracy(ranks, lesson.labels[ranks]),
        "recall": diagnostics.recall(lesson.labels, lesson.keep),
        "pool_accuracy": diagnostics.accuracy(torch.arange(len(lesson.keep)), lesson.labels),
        "pool_cluster_accuracy": diagnostics.cluster_accuracy(lesson.labels),
        **{f"auroc_{name}": diagnostics.auroc(score, lesson.labels) for name, score in scores.items()},
    }
