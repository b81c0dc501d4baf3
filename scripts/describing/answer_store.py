"""Accepted answers on disk, one file for each class, so that a run that ended early can go on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coft.backbones.descriptions import MOST_SENTENCES
from coft.core.experiment import write_json
from coft.core.forms import List, Record, Text
from coft.core.outside import read_json

from .answers import SENTENCE, sift

MOST_BYTES = 1 << 24  # of an answer
FORM = Record({"class": Text(10_000), "sentences": List(SENTENCE, most=MOST_SENTENCES)})


@dataclass(frozen=True)
class AnswerStore:
    """A folder of accepted answers.

    Attributes:
        folder: The folder. The first answer creates it.
        context: What all questions share and answers depend on: endpoint, model, number of sentences.
    """

    folder: Path
    context: tuple[str, ...]

    def _path(self, question: Any) -> Path:
        text = json.dumps([self.context, question], ensure_ascii=False)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"

    def get(self, question: Any, name: str, count: int) -> list[str] | None:
        """The sentences that answered a question; None if there are none, or the file is damaged."""
        try:
            answer = read_json(self._path(question), MOST_BYTES)
            FORM.check(answer)
            usable, faults = sift(answer["sentences"], name, ())
        except (OSError, ValueError):
            return None
        return usable if len(usable) >= count and not faults else None

    def put(self, question: Any, name: str, sentences: list[str]) -> None:
        """Store the sentences that answered a question."""
        write_json(self._path(question), {"class": name, "sentences": sentences})
