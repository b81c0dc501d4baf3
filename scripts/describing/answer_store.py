"""Store of accepted answers on disk, one file per class, so that an interrupted run can resume."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coft.backbones.descriptions import MAX_SENTENCES_PER_CLASS
from coft.core.experiment import write_json
from coft.core.schemas import List, Record, Text
from coft.core.untrusted import read_json

from .answers import SENTENCE, sift

MAX_BYTES = 1 << 24  # largest size of a file
SCHEMA = Record({"class": Text(10_000), "sentences": List(SENTENCE, most=MAX_SENTENCES_PER_CLASS)})


@dataclass(frozen=True)
class AnswerStore:
    """Folder of accepted answers.

    Attributes:
        folder: Path of the folder. The first answer creates it.
        context: Values that answers depend on besides the question: endpoint, model, number of sentences.
    """

    folder: Path
    context: tuple[str, ...]

    def _path(self, question: Any) -> Path:
        text = json.dumps([self.context, question], ensure_ascii=False)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"

    def get(self, question: Any, name: str, count: int) -> list[str] | None:
        """Return the stored sentences for a question; None if fewer than `count` are usable or the file is damaged."""
        try:
            answer = read_json(self._path(question), MAX_BYTES)
            SCHEMA.check(answer)
            usable, faults = sift(answer["sentences"], name, ())
        except (OSError, ValueError):
            return None
        return usable if len(usable) >= count and not faults else None

    def put(self, question: Any, name: str, sentences: list[str]) -> None:
        """Store the sentences that answer a question."""
        write_json(self._path(question), {"class": name, "sentences": sentences})
