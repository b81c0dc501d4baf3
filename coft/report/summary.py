"""What stands on top of the page, and the table of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from coft.core.experiment import KEPT

from .names import Signals
from .run_folder import RunFolder
from .words import duration, number, percent, short

MANY = 1_000  # classes in the table, at most


@dataclass(frozen=True)
class Figure:
    """A number that stands out: what it is of, its text, and what it says."""

    title: str
    value: str
    meaning: str


@dataclass(frozen=True)
class ClassRow:
    """A line of the table of classes: its name, its label, how many images it has, and its numbers by column."""

    name: str
    label: int
    images: int
    texts: dict[str, str]


def facts(run: RunFolder) -> list[tuple[str, str]]:
    """Terms and what they are for this run."""
    own = run.summary
    results = own.get("results", {})
    pool = _number(results.get("zero-shot", {}).get("of"))
    read = own.get("labels_used")
    found = [
        ("Method", str(own.get("trainer", ""))),
        ("Data", str(own.get("dataset", ""))),
        ("Images", f"{len(run.images) or len(run.tested):,}"),
        ("Unlabeled images", "" if pool is None else f"{pool:,.0f}, {own.get('unlabeled', '')}"),
        ("Classes", f"{len(run.classes):,}"),
        ("Backbone", str(own.get("backbone", ""))),
        ("Time", duration(_seconds(run))),
        ("Device", str(own.get("device", ""))),
        ("Seed", str(own.get("seed", ""))),
        ("Kept", f"{own['kept']}: nothing was trained" if KEPT.keys() <= own.keys() else ""),
        ("Labels that training read", "none" if read == 0 else str(read if read is not None else "")),
    ]
    return [(term, short(value, 120)) for term, value in found if value]


def _seconds(run: RunFolder) -> float | None:
    """Of all processes of a run that was stopped and went on; the summary has those of the last."""
    by_epoch = pd.to_numeric(run.epochs.get("seconds", pd.Series(dtype=float)), errors="coerce").dropna()
    last = _number(run.summary.get("seconds"))
    return max([*by_epoch, *([] if last is None else [last])], default=None)


def figures(run: RunFolder) -> list[Figure]:
    """The numbers that stand out, as far as this run has them."""
    results, images = run.summary.get("results", {}), run.images
    found = []
    accuracy = _number(results.get("accuracy_test"))
    if accuracy is not None:
        before = _number(results.get("zero-shot", {}).get("accuracy_both"))
        known = "by the labels that are known; training saw none"
        meaning = known if before is None else f"zero-shot: {before:.1f} %; {known}"
        if run.summary.get("labels_used"):
            meaning = "by labels"
        found.append(Figure("Test accuracy", f"{accuracy:.1f} %", meaning))
    if (images["confidence"].notna()).any():
        found.append(Figure("Mean confidence", percent(float(images["confidence"].mean())), "of the class it predicts"))
    if "kept_for" in images:
        labelled = images[images["pseudo_label"] != ""]
        kept = float((labelled["kept_for"] != "").mean())
        found.append(Figure("Labels kept", percent(kept), "pseudo-labels that a peer was trained on at the end"))
    if "peer_a" in images and "peer_b" in images:
        known_rows = images[(images["peer_a"] != "") & (images["peer_b"] != "")]
        agree = float((known_rows["peer_a"] == known_rows["peer_b"]).mean())
        found.append(Figure("Peers agree", percent(agree), "at the last labelling"))
    if "zero_shot" in images:
        before_rows = images[images["zero_shot"] != ""]
        changed = float((before_rows["zero_shot"] != before_rows["class"]).mean())
        found.append(Figure("Changed", percent(changed), "images that are of another class than to zero-shot CLIP"))
    return found


def class_rows(run: RunFolder, signals: list[Signals] | None) -> list[ClassRow]:
    """A line for each class; of very many classes those with the most images."""
    images, tested = run.images, run.tested
    counts = images["class"].value_counts()
    by_class = dict(list(images.groupby("class", sort=False)))
    before = images["zero_shot"].value_counts() if "zero_shot" in images else None
    right = (tested["predicted"] == tested["class"]).groupby(tested["class"]).mean() if len(tested) else {}
    rows = []
    for label, name in enumerate(run.classes):
        mine = by_class.get(name, images.iloc[:0])
        count = int(counts.get(name, 0))
        texts = {
            "Images": f"{count:,}",
            **({} if before is None else {"By zero-shot": f"{int(before.get(name, 0)):,}"}),
            "Mean confidence": percent(_mean(mine["confidence"])),
            **({"Kept": percent(_mean(mine["kept_for"] != ""))} if "kept_for" in mine else {}),
            **({"Peers disagree": percent(_mean(mine["peer_a"] != mine["peer_b"]))} if "peer_b" in mine else {}),
        }
        if signals:
            own = signals[label]
            texts |= {"Alike": percent(own.alike), "Name fit": number(own.fit, "+.2f")}
        if len(tested):
            texts["Accuracy"] = percent(float(right.get(name, np.nan)))
        rows.append(ClassRow(name, label, count, texts))
    if len(rows) > MANY:
        rows = sorted(sorted(rows, key=lambda row: -row.images)[:MANY], key=lambda row: row.label)
    return rows


def _mean(values: pd.Series) -> float:
    return float(values.mean()) if len(values) else np.nan


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
