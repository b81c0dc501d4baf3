"""Answers that were accepted are kept on disk, one file a class: a run that ended early goes on from there."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coft.core.experiment import write_json

from .answers import sift


@dataclass(frozen=True)
class KeptAnswers:
    """A folder of accepted answers.

    Attributes:
        folder: Made when the first answer comes.
        asked: What all questions have in common and an answer depends on: endpoint, model, number of sentences.
    """

    folder: Path
    asked: tuple[str, ...]

    def _path(self, question: Any) -> Path:
        text = json.dumps([self.asked, question], ensure_ascii=False)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"

    def get(self, question: Any, name: str, count: int) -> list[str] | None:
        """Find the sentences that a question was answered with; None if there are none, or the file is damaged."""
        try:
            sentences = json.loads(self._path(question).read_text(encoding="utf-8"))["sentences"]
            good, faults = sift(sentences, name, ())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return good if len(good) >= count and not faults else None

    def put(self, question: Any, name: str, sentences: list[str]) -> None:
        """Keep the answer to a question."""
        write_json(self._path(question), {"class": name, "sentences": sentences})
