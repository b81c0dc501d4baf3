"""A finished run under review: its classes, suggestions to correct them, and example images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans

from coft.core.errors import UserError
from coft.core.experiment import saved_config
from coft.core.sanitize import some_of
from coft.engine.class_names import CLASSES, Classes, is_file, read_classes
from coft.report import names
from coft.report.image_facts import Evidence, centred_sample, evenly
from coft.report.page import measured
from coft.report.run_folder import RunFolder, read_run

SHOWN = 12  # most pictures per class
PICTURES_PER_HALF = 12  # most pictures per half of a class that is split


@dataclass(frozen=True)
class Suggestion:
    """Suggestion to merge, split or drop a class.

    Attributes:
        label: Label of the class.
        other: Label of the class to merge it into; its own label to split it, -1 to drop it.
        text: Reason, in one or two sentences.
    """

    label: int
    other: int
    text: str


@dataclass(frozen=True)
class Reviewed:
    """Finished run on a user's own images.

    Attributes:
        run: Tables of the run.
        evidence: Facts that the run stored about its images.
        config: Settings of the run, by full name.
        classes: Classes of the run.
        notices: Notices about files that have changed since the run.
    """

    run: RunFolder
    evidence: Evidence
    config: dict[str, Any]
    classes: Classes
    notices: list[str]

    def shown_images(self) -> dict[str, list[int]]:
        """Return evenly spaced images of each class at the end of the run, as rows of the table of images."""
        groups = self.run.images.groupby("class", sort=False).indices
        members = {str(name): rows for name, rows in groups.items()}
        no_images = np.zeros(0, dtype=int)
        by_class = [members.get(name, no_images) for name in self.classes.names]
        spread = [rows[evenly(len(rows), SHOWN)].tolist() for rows in by_class]
        return dict(zip(self.classes.names, spread, strict=True))

    def suggestions(self) -> list[Suggestion]:
        """Return suggestions for classes that may be wrong: suspicious names first, then classes with few images."""
        signals, class_names, suggestions = measured(self.run), self.classes.names, list[Suggestion]()
        suspects = names.suspects(signals)
        of_two_kinds = [class_names[suspect.label] for suspect in suspects if names.TWO_KINDS in suspect.reasons]
        for suspect in suspects:
            suggestions += _suggest(suspect, class_names, of_two_kinds)
        counts = self.run.counts
        for label in names.rare(np.array(counts)):
            text = f"“{class_names[label]}” has {counts[label]} of {sum(counts):,} images."
            suggestions.append(Suggestion(label, -1, text))
        return suggestions

    def halves(self, label: int) -> list[list[int]]:
        """Split the images of a class into two groups by their features.

        Args:
            label: Label of the class.

        Returns:
            Rows of the table of images for each group, the larger group first.

        Raises:
            UserError: If features are stored for fewer than `names.MIN_IMAGES` of its images.
        """
        final_classes = self.run.images["class"].iloc[self.evidence.sample].to_numpy()
        members = np.flatnonzero(final_classes == self.classes.names[label])
        if len(members) < names.MIN_IMAGES:
            raise UserError(
                f"only {len(members)} images; {names.MIN_IMAGES} are needed to find two groups: leave the class whole"
            )
        features = centred_sample(self.evidence)[torch.from_numpy(members)].numpy()
        half = KMeans(2, n_init=5, random_state=0).fit_predict(features)
        groups = [self.evidence.sample[members[half == number]].tolist() for number in (0, 1)]
        return sorted(groups, key=len, reverse=True)


def _suggest(suspect: names.Suspect, class_names: list[str], of_two_kinds: list[str]) -> list[Suggestion]:
    """Return suggestions to rename, merge or split a suspicious class. Other reasons give no suggestion.

    The images of a badly named class may be in one of those `of_two_kinds`.
    """
    label, rival, name = suspect.label, suspect.signals.rival, class_names[suspect.label]
    elsewhere = [f"“{other}”" for other in of_two_kinds if other != name]
    missing = f" Images of “{name}” may be in {some_of(elsewhere)}: try another word for it." if elsewhere else ""
    suggestions = {
        "another name fits better": lambda: Suggestion(
            label, rival, f"“{class_names[rival]}” fits the images of “{name}” better than that name does.{missing}"
        ),
        names.TWO_KINDS: lambda: Suggestion(label, label, f"“{name}” may be two kinds of images: is a name missing?"),
    }
    return [suggestions[reason]() for reason in suspect.reasons if reason in suggestions]


def read_reviewed(folder: Path) -> Reviewed:
    """Read a finished run for a review.

    Args:
        folder: Output folder of the run.

    Raises:
        UserError: If there is no run, if it is not finished or damaged, if it is not on a user's own images, or if it
            stored no features of its images.
    """
    run, config = read_run(folder), saved_config(folder) or {}
    if config.get("DATASET.NAME") != "Folder":
        raise UserError(
            f"{folder}: a run on {config.get('DATASET.NAME') or 'an unknown data set'}, whose classes are given; only "
            f"runs on your own images can be reviewed"
        )
    if run.in_memory:
        raise UserError(f"{folder}: a run on images in memory; only runs on image files can be reviewed")
    if run.evidence is None or not len(run.evidence.sample):
        raise UserError(
            f"{folder}: the run has left no features of its images, as CoFT and CoFT+ do; take one of these, and run "
            f"again"
        )
    classes, notices = _classes(folder, run.evidence.classes)
    notices += [*_changed(config.get("DATASET.CLASSES"), classes), *filter(None, [run.missing_notice()])]
    return Reviewed(run, run.evidence, config, classes, notices)


def _classes(folder: Path, class_names: list[str]) -> tuple[Classes, list[str]]:
    """Return the classes with synonyms and descriptions, and a notice if their file has changed since the run."""
    path = folder / CLASSES
    if not path.is_file():
        return Classes(class_names), []
    try:
        file_classes = read_classes(str(path))
    except UserError:
        file_classes = Classes([])
    if file_classes.names == class_names:
        return file_classes, []
    notice = f"{path} is not what the run wrote: synonyms and descriptions of its classes are left out."
    return Classes(class_names), [notice]


def _changed(source: Any, classes: Classes) -> list[str]:
    """Return a notice if the user's file of classes has changed since the run."""
    if not isinstance(source, str) or not source or not is_file(Path(source)):
        return []
    try:
        unchanged = read_classes(source) == classes
    except UserError:
        unchanged = False
    return [] if unchanged else [f"{source} has changed since the run. This page has the classes of the run."]
