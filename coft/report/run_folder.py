"""Reader of a finished run's output folder: its tables as one object."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coft.core.errors import UserError
from coft.core.experiment import IN_MEMORY, UNTRAINED_ENTRY, require_finished
from coft.core.schemas import Anything, Record
from coft.core.untrusted import MISSING, read_json, read_table, read_text
from coft.core.words import counted
from coft.report.image_facts import Evidence, read_evidence

from .formatting import common_folder, short

WARNING = "Warning: "  # prefix of warnings in log.txt
MOST_WARNINGS = 50
SCHEMA = Record(optional={"results": Record(others=Anything())}, others=Anything())  # of summary.json
TRAINING_COLUMNS = ("kept_for", "zero_shot", "peer_a", "peer_b")  # columns of `images` without a meaning untrained
PATH_COLUMNS = ("path", "image")  # columns that hold the file of a row
NUMERIC_COLUMNS = ("confidence", "p_clean_a", "p_clean_b")  # numeric columns of `images`


@dataclass(frozen=True)
class RunFolder:
    """Finished run.

    Attributes:
        folder: Output folder.
        summary: Content of `summary.json`.
        epochs: Content of `metrics.csv`; empty if there is none or nothing was trained.
        images: One row per image that was predicted or labelled, first those of `pseudo_labels.csv` in their order.
            Columns path, class (at the end), confidence; if known also pseudo_label, p_clean_a, p_clean_b, kept_for,
            zero_shot, peer_a, peer_b. Classes are names.
        tested: Images with a known true class. Columns image, class, predicted.
        skipped: Files that could not be read. Columns path, problem.
        copies: Files with identical content. Columns group, path.
        warnings: Distinct warnings of the log, at most `MOST_WARNINGS`.
        evidence: Facts that the run stored for its report; None if it stored none, or for other images than those of
            `pseudo_labels.csv`.
    """

    folder: Path
    summary: dict[str, Any]
    epochs: pd.DataFrame
    images: pd.DataFrame
    tested: pd.DataFrame
    skipped: pd.DataFrame
    copies: pd.DataFrame
    warnings: list[str]
    evidence: Evidence | None

    @property
    def title(self) -> str:
        """Name of the data set; for a user's own images, the name of their common folder."""
        dataset = str(self.summary.get("dataset", ""))
        return Path(common_folder(list(self.images["path"]))).name or dataset if dataset == "Folder" else dataset

    @property
    def classes(self) -> list[str]:
        """Names of all classes, by label if the run stored the order of the labels, else sorted."""
        if self.evidence is not None:
            return self.evidence.classes
        names = [*self.images["class"], *self.tested["class"], *self.tested["predicted"]]
        return sorted(set(names))

    @property
    def counts(self) -> list[int]:
        """Number of images of each class at the end of the run, by label."""
        counts: pd.Series = self.images["class"].value_counts().reindex(self.classes, fill_value=0)
        return counts.tolist()

    @property
    def in_memory(self) -> bool:
        """Whether the images were not files, so that they have numbers in place of paths."""
        return self.summary.get("images") == IN_MEMORY

    def missing_images(self) -> list[str]:
        """Return the paths of a user's own images that no longer exist."""
        is_own = self.summary.get("dataset") == "Folder" and not self.in_memory
        return [path for path in self.images["path"] if not os.path.lexists(path)] if is_own else []

    def missing_notice(self) -> str:
        """Return a sentence about the images that cannot be shown; empty if there are none."""
        if self.in_memory:
            return "The images were passed in memory, so there are no pictures."
        missing = self.missing_images()
        if not missing:
            return ""
        return (
            f"{len(missing):,} of {counted(len(self.images), 'image')} are no longer where the run read them, such as "
            f"{short(missing[0], 200)}. If they were sorted, coft predict --undo moves them back."
        )


def read_run(folder: Path) -> RunFolder:
    """Read the folder of a finished run.

    Args:
        folder: Output folder of the run.

    Raises:
        UserError: If the folder holds no run, or if the run is not finished or damaged.
    """
    require_finished(folder)
    evidence = read_evidence(folder)
    labelled = _table(folder / "pseudo_labels.csv", ("path", "class", "confidence"))
    if evidence is not None and len(labelled) != len(evidence.zero_shot):
        evidence = None
    images, summary = _images(folder, labelled, evidence), _summary(folder / "summary.json")
    epochs = _table(folder / "metrics.csv", ("epoch", "stage"))
    if UNTRAINED_ENTRY.keys() <= summary.keys():  # nothing was trained, so no label was changed or filtered
        images = images.drop(columns=[name for name in TRAINING_COLUMNS if name in images])
        epochs = epochs.iloc[:0]
    return RunFolder(
        folder,
        summary,
        epochs,
        images,
        _tested(folder),
        _table(folder / "skipped.csv", ("path", "problem")),
        _table(folder / "duplicates.csv", ("group", "path")),
        _warnings(folder),
        evidence,
    )


def _summary(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = read_json(path)
        SCHEMA.check(content)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as the summary of a run; run again") from error
    return content


def _table(path: Path, expected: tuple[str, ...]) -> pd.DataFrame:
    """Read a CSV file as a table of strings; without rows if there is no such file."""
    try:
        table = read_table(path)
    except MISSING:
        return pd.DataFrame(columns=list(expected))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a table ({error}); run again") from error
    if missing := [name for name in expected if name not in table]:
        raise UserError(f"{path}: has no column {missing[0]!r}; run again")
    if unnamed := [name for name in PATH_COLUMNS if name in table and (table[name] == "").any()]:
        raise UserError(f"{path}: has a row without {unnamed[0]}; run again")
    return table


def _images(folder: Path, labelled: pd.DataFrame, evidence: Evidence | None) -> pd.DataFrame:
    predicted = _table(folder / "predictions.csv", ("path", "class", "confidence"))
    if evidence is not None:
        names = np.array([*evidence.classes, ""], dtype=object)
        labels_by_column = {"zero_shot": evidence.zero_shot, **evidence.peers}
        labelled = labelled.assign(**{name: names[values] for name, values in labels_by_column.items()})
    labelled["pseudo_label"] = labelled["class"]
    predicted = predicted.drop_duplicates("path")
    images = pd.concat([labelled, predicted[~predicted["path"].isin(labelled["path"])]], ignore_index=True)
    for name in ("class", "confidence"):  # replace by the final predictions if there are any
        final = images["path"].map(dict(zip(predicted["path"], predicted[name], strict=True)))
        images[name] = final.where(final.notna(), images[name])
    text_columns = [name for name in images if name not in NUMERIC_COLUMNS]
    images[text_columns] = images[text_columns].fillna("")
    return images.assign(
        **{name: pd.to_numeric(images[name], errors="coerce") for name in NUMERIC_COLUMNS if name in images}
    )


def _tested(folder: Path) -> pd.DataFrame:
    """Return the images with a known true class, with the class that the run predicts at the end."""
    tested = _table(folder / "test_predictions.csv", ("image", "class"))
    tested = tested[tested["class"] != ""]
    if "end" not in tested:  # a run on a user's own images has the final classes in predictions.csv
        predicted = _table(folder / "predictions.csv", ("path", "class", "confidence"))
        final = dict(zip(predicted["path"], predicted["class"], strict=True))
        tested = tested.assign(end=[final.get(image, "") for image in tested["image"]])
    tested = tested[tested["end"] != ""]
    return tested.rename(columns={"end": "predicted"})[["image", "class", "predicted"]].reset_index(drop=True)


def _warnings(folder: Path) -> list[str]:
    lines: list[str] = []
    with suppress(OSError):
        lines = read_text(folder / "log.txt", errors="replace").splitlines()
    warnings = [line.removeprefix(WARNING) for line in lines if line.startswith(WARNING)]
    return list(dict.fromkeys(warnings))[:MOST_WARNINGS]
