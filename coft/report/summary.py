"""Top section of the page, and its table of classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from coft.core.experiment import UNTRAINED_ENTRY
from coft.core.words import counted
from coft.labelling.calibration import estimated_range

from .formatting import duration, number, percent, short
from .names import Signals
from .run_folder import RunFolder

MANY = 1_000  # upper bound of the classes in the table
COLUMNS = {
    "Images": "number of images whose final class this is",
    "By zero-shot": "number of images by zero-shot CLIP, before training, without copies",
    "Mean confidence": "mean confidence of its images",
    "Kept": "share of its images whose last pseudo-label has a weight above 1/2",
    "Peers disagree": "share of its images on which the two peers disagree",
    "Alike": "share of its images' nearest neighbours with the same class; high if they form one group",
    "Name fit": "how much better its own name fits its images than the best other name; below 0 another fits",
    "Believed": "mean probability of the name, by zero-shot CLIP, over the images of the class",
    "Accuracy": "accuracy on the test images of the class",
}


@dataclass(frozen=True)
class Figure:
    """Key figure at the top of the page.

    Attributes:
        title: Name of the figure.
        share: Value in [0, 1].
        meaning: Explanation.
        before: Value before training; None if there is none.
    """

    title: str
    share: float
    meaning: str
    before: float | None = None


@dataclass(frozen=True)
class ClassRow:
    """Row of the table of classes: name, label, number of images, and a text for each column."""

    name: str
    label: int
    images: int
    texts: dict[str, str]


def facts(run: RunFolder) -> list[tuple[str, str]]:
    """Return facts about the run, as pairs of a term and its value. Terms without a value are left out."""
    summary = run.summary
    results = summary.get("results", {})
    pool_size = _number(results.get("zero-shot", {}).get("of"))
    labels_used = summary.get("labels_used")
    labels_text = "" if labels_used is None else "none" if labels_used == 0 else str(labels_used)
    terms = [
        ("Method", str(summary.get("trainer", ""))),
        ("Data", run.title),
        ("Images", f"{len(run.images) or len(run.tested):,}"),
        ("Unlabeled images", "" if pool_size is None else f"{pool_size:,.0f}, {summary.get('unlabeled', '')}"),
        ("Classes", f"{len(run.classes):,}"),
        ("Backbone", str(summary.get("backbone", ""))),
        ("Time", duration(_seconds(run))),
        ("Device", str(summary.get("device", ""))),
        ("Seed", str(summary.get("seed", ""))),
        ("Training", f"none: {summary['kept']} predicts" if UNTRAINED_ENTRY.keys() <= summary.keys() else ""),
        ("Labels used in training", labels_text),
    ]
    return [(term, short(value, 120)) for term, value in terms if value]


def _seconds(run: RunFolder) -> float | None:
    """Return the duration of the whole run in seconds. In a resumed run, the summary only covers the last process."""
    by_epoch = pd.to_numeric(run.epochs.get("seconds", pd.Series(dtype=float)), errors="coerce").dropna()
    last = _number(run.summary.get("seconds"))
    return max([*by_epoch, *([] if last is None else [last])], default=None)


def lead(run: RunFolder) -> list[str]:
    """Return short facts about the run for the line below the title."""
    backbone = run.summary.get("backbone")
    clip = [f"CLIP {short(str(backbone), 60)}"] if backbone else []
    counts = [f"{len(run.images) or len(run.tested):,} images", f"{len(run.classes):,} classes"]
    return [*counts, *clip, duration(_seconds(run))]


def figures(run: RunFolder, suspects: int = 0) -> list[Figure]:
    """Return the key figures at the top of the page, as far as the run has them.

    Args:
        run: The run.
        suspects: Number of classes whose name may be wrong.
    """
    results, images = run.summary.get("results", {}), run.images
    shown = []
    accuracy = _number(results.get("accuracy_test"))
    if accuracy is not None:
        before = _number(results.get("zero-shot", {}).get("accuracy_both"))
        basis = "by the known labels, which training did not use"
        meaning = basis if before is None else f"zero-shot: {before:.1f} %; {basis}"
        if run.summary.get("labels_used"):
            meaning = "by labels"
        shown.append(Figure("Test accuracy", accuracy / 100, meaning, None if before is None else before / 100))
    if (images["confidence"].notna()).any():
        shown.append(estimate(run.summary, float(images["confidence"].mean()), suspects))
    if "kept_for" in images:
        labelled = images[images["pseudo_label"] != ""]
        kept = float((labelled["kept_for"] != "").mean())
        shown.append(Figure("Labels kept", kept, "last pseudo-labels with a weight above 1/2 for at least one peer"))
    if "peer_a" in images and "peer_b" in images:
        both_labelled = images[(images["peer_a"] != "") & (images["peer_b"] != "")]
        agreement = float((both_labelled["peer_a"] == both_labelled["peer_b"]).mean())
        shown.append(Figure("Peers agree", agreement, "at the last labelling"))
    if "zero_shot" in images:
        with_zero_shot = images[images["zero_shot"] != ""]
        changed = float((with_zero_shot["zero_shot"] != with_zero_shot["class"]).mean())
        shown.append(Figure("Changed", changed, "images whose class differs from zero-shot CLIP's"))
    return shown


def estimate(summary: Mapping[str, Any], confidence: float, suspects: int = 0) -> Figure:
    """Return the mean confidence as a figure: as an estimate of the accuracy if the run is calibrated.

    Args:
        summary: Summary of the run.
        confidence: Mean confidence.
        suspects: Number of classes whose name may be wrong.
    """
    if not summary.get("calibrated", False):
        meaning = "of its predictions; it is not calibrated, so the accuracy is unknown"
        return Figure("Mean confidence", confidence, meaning)
    low, high = estimated_range(confidence)
    meaning = f"mean confidence; between {100 * low:.0f} and {100 * high:.0f} %"
    if not suspects:
        return Figure("Estimated accuracy", confidence, f"{meaning} if no name is wrong or missing")
    doubt = f"{counted(suspects, 'name')} may be wrong, and then it is lower"
    return Figure("Accuracy if these names are right", confidence, f"{meaning}; {doubt}")


def class_rows(run: RunFolder, signals: list[Signals]) -> list[ClassRow]:
    """Return a row for each class, by label; if there are more than `MANY`, for the classes with the most images.

    Args:
        run: The run.
        signals: Signals of each class; empty if they could not be measured.
    """
    images, tested = run.images, run.tested
    by_class = dict(list(images.groupby("class", sort=False)))
    before = images["zero_shot"].value_counts() if "zero_shot" in images else None
    right = (tested["predicted"] == tested["class"]).groupby(tested["class"]).mean() if len(tested) else {}
    rows = []
    for label, (name, count) in enumerate(zip(run.classes, run.counts, strict=True)):
        members = by_class.get(name, images.iloc[:0])
        labelled = members[members["pseudo_label"] != ""] if "pseudo_label" in members else members  # without copies
        texts = {
            "Images": f"{count:,}",
            **({} if before is None else {"By zero-shot": f"{int(before.get(name, 0)):,}"}),
            "Mean confidence": percent(members["confidence"].mean()),
            **({"Kept": percent((labelled["kept_for"] != "").mean())} if "kept_for" in members else {}),
        }
        if "peer_b" in members:
            texts["Peers disagree"] = percent((labelled["peer_a"] != labelled["peer_b"]).mean())
        if signals:
            class_signals = signals[label]
            texts |= {"Alike": percent(class_signals.alike), "Name fit": number(class_signals.fit, "+.2f")}
            texts |= {"Believed": percent(class_signals.believed)}
        if len(tested):
            texts["Accuracy"] = percent(float(right.get(name, np.nan)))
        rows.append(ClassRow(name, label, count, texts))
    if len(rows) > MANY:
        rows = sorted(sorted(rows, key=lambda row: -row.images)[:MANY], key=lambda row: row.label)
    return rows


def columns(rows: list[ClassRow]) -> list[tuple[str, str]]:
    """Return the columns of the table of classes, as pairs of a heading and an explanation."""
    return [(name, COLUMNS[name]) for name in (rows[0].texts if rows else ())]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
