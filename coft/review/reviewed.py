"""A finished run as it is reviewed: its classes, what may be wrong with them, and which images show it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans

from coft.core.errors import UserError
from coft.core.experiment import saved_config
from coft.engine.class_names import CLASSES, Classes, is_file, read_classes
from coft.report import names
from coft.report.image_facts import Evidence, centred_sample, evenly
from coft.report.page import measured
from coft.report.run_folder import RunFolder, read_run
from coft.report.words import percent

SHOWN = 12  # pictures of a class
OF_HALF = 12  # pictures of one of its halves


@dataclass(frozen=True)
class Suggestion:
    """What may be wrong with a class, and what would mend it.

    Attributes:
        label: Of the class.
        other: Label of the class that it could be merged into; -1 where it could be dropped.
        text: Why, in a sentence.
    """

    label: int
    other: int
    text: str


@dataclass(frozen=True)
class Reviewed:
    """A finished run of a user's own images.

    Attributes:
        run: Its tables.
        evidence: What it has kept of its images.
        config: Its settings, by full name.
        classes: As the run had them.
        notices: What a person should know of the run's files.
    """

    run: RunFolder
    evidence: Evidence
    config: dict[str, Any]
    classes: Classes
    notices: list[str]

    def places(self) -> dict[str, list[int]]:
        """Some images of each class in the end, as places in the run's table of images."""
        groups = self.run.images.groupby("class", sort=False).indices
        found = {str(name): rows for name, rows in groups.items()}
        none = np.zeros(0, dtype=int)
        own = [found.get(name, none) for name in self.classes.names]
        return {
            name: rows[evenly(len(rows), SHOWN)].tolist() for name, rows in zip(self.classes.names, own, strict=True)
        }

    def counts(self) -> list[int]:
        """Images of each class in the end."""
        counts = self.run.images["class"].value_counts()
        return [int(counts.get(name, 0)) for name in self.classes.names]

    def suggestions(self) -> list[Suggestion]:
        """What may be wrong, the most suspicious class first; then classes that have almost no image."""
        signals, known, found = measured(self.run), self.classes.names, list[Suggestion]()
        for own in names.suspects(signals or []):
            found += _of_suspect(own, known)
        counts = self.counts()
        for label in names.rare(np.array(counts)):
            found.append(Suggestion(label, -1, f"“{known[label]}” has {counts[label]} of {sum(counts):,} images."))
        return found

    def halves(self, label: int) -> list[list[int]]:
        """The images of a class in two groups by their looks, the larger one first, as places in the table of images.

        Args:
            label: Of the class.

        Raises:
            UserError: If there are too few images of it among those whose features are kept.
        """
        final = self.run.images["class"].iloc[self.evidence.sample].to_numpy()
        mine = np.flatnonzero(final == self.classes.names[label])
        if len(mine) < names.AT_LEAST:
            raise UserError(
                f"only {len(mine)} images; {names.AT_LEAST} are needed to find two groups: leave the class whole"
            )
        features = centred_sample(self.evidence)[torch.from_numpy(mine)].numpy()
        half = KMeans(2, n_init=5, random_state=0).fit_predict(features)
        groups = [self.evidence.sample[mine[half == number]].tolist() for number in (0, 1)]
        return sorted(groups, key=len, reverse=True)


def _of_suspect(own: names.Suspect, known: list[str]) -> list[Suggestion]:
    """A suggestion for each class that a suspicious one could be merged into."""
    signals, called = own.signals, known[own.label]
    reasons = {
        "another name fits as well": lambda: (
            signals.rival,
            f"“{known[signals.rival]}” fits the images of “{called}” "
            + ("better than its own name." if signals.fit < 0 else "nearly as well as its own name."),
        ),
        "took another class's images": lambda: (
            signals.source,
            f"{percent(signals.taken)} of the images of “{called}” were “{known[signals.source]}” to zero-shot CLIP.",
        ),
    }
    found: dict[int, str] = {}
    for reason in own.reasons:
        other, text = reasons[reason]()
        found[other] = f"{found[other]} {text}" if other in found else text
    return [Suggestion(own.label, other, text) for other, text in found.items()]


def read_reviewed(folder: Path) -> Reviewed:
    """Read a finished run for a review.

    Raises:
        UserError: If it is none, not finished, damaged, or has not kept what a review needs.
    """
    run, config = read_run(folder), saved_config(folder) or {}
    if config.get("DATASET.NAME") != "Folder":
        raise UserError(
            f"{folder}: a run on {config.get('DATASET.NAME') or 'an unknown data set'}, whose classes are given; only "
            f"runs on your own images can be reviewed"
        )
    if run.evidence is None or not len(run.evidence.sample):
        raise UserError(
            f"{folder}: the run has kept no features of its images, as CoFT and CoFT+ do; take one of these, and run "
            f"again"
        )
    classes, notices = _classes(folder, run.evidence.classes)
    notices += _changed(config.get("DATASET.CLASSES"), classes)
    return Reviewed(run, run.evidence, config, classes, notices)


def _classes(folder: Path, known: list[str]) -> tuple[Classes, list[str]]:
    """Classes with synonyms and descriptions, if the file that has them is still that of the run."""
    path = folder / CLASSES
    if not path.is_file():
        return Classes(known), []
    try:
        found = read_classes(str(path))
    except UserError:
        found = Classes([])
    if found.names == known:
        return found, []
    return Classes(known), [f"{path} is not what the run wrote: synonyms and descriptions of its classes are left out."]


def _changed(given: Any, classes: Classes) -> list[str]:
    """Says so if the file that the run had its classes from has others now."""
    if not isinstance(given, str) or not given or not is_file(Path(given)):
        return []
    try:
        same = read_classes(given) == classes
    except UserError:
        same = False
    return [] if same else [f"{given} has changed since the run. This page has the classes of the run."]
