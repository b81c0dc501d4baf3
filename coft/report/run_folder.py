"""Reading the folder of a finished run: its tables, as far as there are any, as one object."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coft.core.errors import UserError
from coft.core.experiment import KEPT
from coft.core.files import read_json
from coft.report.image_facts import Evidence, read_evidence

from .finished import require_finished

WARNING = "Warning: "  # how a line of log.txt begins that is one
MOST_WARNINGS = 50
OF_TRAINING = ("kept_for", "zero_shot", "peer_a", "peer_b")  # columns of images
NUMBERS = ("confidence", "p_clean_a", "p_clean_b")  # columns of images


@dataclass(frozen=True)
class RunFolder:
    """A finished run.

    Attributes:
        folder: Where it is.
        summary: What summary.json has.
        epochs: metrics.csv; empty where there is none.
        images: A line for each image that was predicted or labelled: path, class (in the end), confidence; and as far
            as known pseudo_label, p_clean_a, p_clean_b, kept_for, zero_shot, peer_a, peer_b (names of classes). Its
            first lines are those of pseudo_labels.csv, in that order.
        tested: Images whose class is known: image, class, predicted.
        skipped: Files that could not be read: path, problem.
        copies: Files of equal content: group, path.
        warnings: Of the log.
        evidence: What the run has kept for its report; None where it is of other images than pseudo_labels.csv.
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
    def classes(self) -> list[str]:
        """Names of all classes, in the order of their labels where the run has kept that."""
        if self.evidence is not None:
            return self.evidence.classes
        known = [*self.images["class"], *self.tested["class"], *self.tested["predicted"]]
        return sorted(set(known))


def read_run(folder: Path) -> RunFolder:
    """Read the folder of a finished run.

    Raises:
        UserError: If it is none, or not finished, or damaged.
    """
    require_finished(folder)
    evidence = read_evidence(folder)
    labelled = _table(folder / "pseudo_labels.csv", ("path", "class", "confidence"))
    if evidence is not None and len(labelled) != len(evidence.zero_shot):
        evidence = None
    images, summary = _images(folder, labelled, evidence), _summary(folder / "summary.json")
    if KEPT.keys() <= summary.keys():  # one model, that of before: nothing has changed, and nothing was filtered
        images = images.drop(columns=[name for name in OF_TRAINING if name in images])
    return RunFolder(
        folder,
        summary,
        _table(folder / "metrics.csv", ("epoch", "stage")),
        images,
        _tested(folder),
        _table(folder / "skipped.csv", ("path", "problem")),
        _table(folder / "duplicates.csv", ("group", "path")),
        _warnings(folder),
        evidence,
    )


def _summary(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
        if not isinstance(content.get("results", {}), dict):
            raise ValueError("results")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read as the summary of a run; run again") from error
    return content


def _table(path: Path, expected: tuple[str, ...]) -> pd.DataFrame:
    """A CSV file as text; without lines if there is none."""
    if not path.is_file():
        return pd.DataFrame(columns=list(expected))
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding_errors="surrogateescape")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a table ({error}); run again") from error
    if missing := [name for name in expected if name not in table]:
        raise UserError(f"{path}: has no column {missing[0]!r}; run again")
    return table


def _images(folder: Path, labelled: pd.DataFrame, evidence: Evidence | None) -> pd.DataFrame:
    predicted = _table(folder / "predictions.csv", ("path", "class", "confidence"))
    if evidence is not None:
        names = np.array([*evidence.classes, ""], dtype=object)
        more = {"zero_shot": evidence.zero_shot, **evidence.peers}
        labelled = labelled.assign(**{name: names[values] for name, values in more.items()})
    labelled["pseudo_label"] = labelled["class"]
    predicted = predicted.drop_duplicates("path")
    images = pd.concat([labelled, predicted[~predicted["path"].isin(labelled["path"])]], ignore_index=True)
    for name in ("class", "confidence"):  # in the end, where it is known
        end = images["path"].map(dict(zip(predicted["path"], predicted[name], strict=True)))
        images[name] = end.where(end.notna(), images[name])
    texts = [name for name in images if name not in NUMBERS]
    images[texts] = images[texts].fillna("")
    return images.assign(**{name: pd.to_numeric(images[name], errors="coerce") for name in NUMBERS if name in images})


def _tested(folder: Path) -> pd.DataFrame:
    """Images whose class is known, with what the run predicts for them in the end."""
    tested = _table(folder / "test_predictions.csv", ("image", "class"))
    tested = tested[tested["class"] != ""]
    if "end" not in tested:  # a user's own images: their end is in another file
        predicted = _table(folder / "predictions.csv", ("path", "class", "confidence"))
        end = dict(zip(predicted["path"], predicted["class"], strict=True))
        tested = tested.assign(end=[end.get(image, "") for image in tested["image"]])
    tested = tested[tested["end"] != ""]
    return tested.rename(columns={"end": "predicted"})[["image", "class", "predicted"]].reset_index(drop=True)


def logs(folder: Path) -> list[Path]:
    """`log.txt`, and those of when the run went on, which have the date in their names."""
    return sorted(folder.glob("log.txt*"))


def _warnings(folder: Path) -> list[str]:
    lines: list[str] = []
    for path in logs(folder):
        with suppress(OSError):
            lines += path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = [line.removeprefix(WARNING) for line in lines if line.startswith(WARNING)]
    return list(dict.fromkeys(found))[:MOST_WARNINGS]
