"""Predictions as rows of CSV or JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from coft.core.files import UnixLines

if TYPE_CHECKING:
    from .stream import Outcome

UNSURE = "unsure"  # class of predictions of low confidence
Row = dict[str, Any]  # a prediction, as it is written


def row_of(outcome: Outcome, classes: Sequence[str], top: int, unsure: float) -> Row:
    """Return the output row of an image, which gets the class "unsure" if its confidence is below `unsure`.

    The row has path, class, confidence, p_clean of the likeliest class if the model has negative prompts, "likeliest"
    (the likeliest class) if `unsure` is set, and "top": the `top` likeliest classes with their confidences.
    """
    probabilities, labels = outcome.probabilities.topk(min(top, len(classes)))
    names = [classes[label] for label in labels.tolist()]
    confidences = [round(probability, 6) for probability in probabilities.tolist()]
    is_unsure = confidences[0] < unsure  # compare the rounded confidence, which is the one in the row
    shown_class = UNSURE if is_unsure else names[0]
    row: Row = {"path": outcome.source.shown, "class": shown_class, "confidence": confidences[0]}
    if outcome.p_clean is not None:
        row["p_clean"] = round(float(outcome.p_clean[labels[0]]), 6)
    if unsure:
        row["likeliest"] = names[0]
    pairs = zip(names, confidences, strict=True)
    return row | {"top": [{"class": name, "confidence": confidence} for name, confidence in pairs]}


def write_json_row(file: TextIO, row: Row) -> None:
    """Write a row as a line of JSON."""
    file.write(json.dumps(row, ensure_ascii=False) + "\n")


class CsvWriter:
    """Writer of rows as CSV after a header: path, class, confidence, p_clean, moved_to, class_2, confidence_2 ..."""

    def __init__(self) -> None:
        self.begun = False

    def __call__(self, file: TextIO, row: Row) -> None:
        """Write a row, after the header if it is the first one."""
        columns = {key: value for key, value in row.items() if key != "top"}
        for rank, candidate in enumerate(row["top"][1:], start=2):
            columns |= {f"class_{rank}": candidate["class"], f"confidence_{rank}": f"{candidate['confidence']:.6f}"}
        for key in {"confidence", "p_clean"} & columns.keys():
            columns[key] = f"{columns[key]:.6f}"
        writer = csv.writer(UnixLines(file))
        if not self.begun:
            writer.writerow(columns)
            self.begun = True
        writer.writerow(columns.values())


WRITERS: dict[str, Callable[[], Callable[[TextIO, Row], None]]] = {"csv": CsvWriter, "jsonl": lambda: write_json_row}
