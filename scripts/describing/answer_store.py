"""Accepted answers on disk, one file for each class, so that a run that ended early can go on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coft.core.experiment import write_json

from .answers import sift


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
            sentences = json.loads(self._path(question).read_text(encoding="utf-8"))["sentences"]
            usable, faults = sift(sentences, name, ())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return usable if len(usable) >= count and not faults else None

    def put(self, question: Any, name: str, sentences: list[str]) -> None:
        """Store the sentences that answered a question."""
        write_json(self._path(question), {"class": name, "sentences": sentences})
