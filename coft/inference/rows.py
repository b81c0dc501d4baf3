"""Predictions as lines of a table: CSV, or JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from .stream import Outcome

UNSURE = "unsure"
Line = dict[str, Any]


@dataclass(frozen=True)
class Reader:
    """Turns what a model says into a line.

    Attributes:
        classes: C names.
        top: How many of the likeliest classes are named.
        unsure: An image below this confidence is of the class "unsure". 0: none is.
    """

    classes: Sequence[str]
    top: int = 2
    unsure: float = 0.0

    def line(self, outcome: Outcome) -> Line:
        """Path, class, confidence, p_clean of the likeliest class where there is one, and the likeliest classes.

        Where images may be unsure there is "likeliest", too: the class that an unsure one most likely has.
        """
        count = min(self.top, len(self.classes))
        shares, labels = outcome.probabilities.topk(count)
        names, numbers = [self.classes[label] for label in labels.tolist()], [round(x, 6) for x in shares.tolist()]
        sure = not numbers[0] < self.unsure  # as it is shown
        line: Line = {"path": outcome.source.shown, "class": names[0] if sure else UNSURE, "confidence": numbers[0]}
        if outcome.p_clean is not None:
            line["p_clean"] = round(float(outcome.p_clean[labels[0]]), 6)
        if self.unsure:
            line["likeliest"] = names[0]
        pairs = zip(names, numbers, strict=True)
        return line | {"top": [{"class": name, "confidence": number} for name, number in pairs]}


def write_json_line(file: TextIO, line: Line) -> None:
    """Write a line as JSON."""
    file.write(json.dumps(line, ensure_ascii=False) + "\n")


class CsvLines:
    """Writes lines as CSV, after a line of names: path, class, confidence, p_clean, moved_to, class_2 ..."""

    def __init__(self) -> None:
        self.begun = False

    def __call__(self, file: TextIO, line: Line) -> None:
        """Write a line."""
        flat = {key: value for key, value in line.items() if key != "top"}
        for place, guess in enumerate(line["top"][1:], start=2):
            flat |= {f"class_{place}": guess["class"], f"confidence_{place}": f"{guess['confidence']:.6f}"}
        for key in {"confidence", "p_clean"} & flat.keys():
            flat[key] = f"{flat[key]:.6f}"
        writer = csv.writer(file, lineterminator="\n")
        if not self.begun:
            writer.writerow(flat)
            self.begun = True
        writer.writerow(flat.values())


WRITERS: dict[str, Callable[[], Callable[[TextIO, Line], None]]] = {"csv": CsvLines, "jsonl": lambda: write_json_line}
