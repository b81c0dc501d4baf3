"""Extract the sentences of a model's answer, and decide which of them are usable."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from coft.backbones.descriptions import MAX_TOKENS, class_key, names_class, num_tokens
from coft.core.schemas import Text
from coft.core.untrusted import parse_json

SENTENCE = Text(2_000)
FEWEST_WORDS = 5  # smallest number of words of a sentence, without those of the class name
_THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_ITEM = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+(.+)$", re.MULTILINE)


def sentences_in(answer: str) -> list[str]:
    """Extract the sentences of an answer: a JSON list, alone or inside an object or text, or the lines of a list.

    Args:
        answer: Text of the answer.

    Returns:
        The unchecked sentences; empty if there is no list.
    """
    text = _THOUGHTS.sub("", answer)
    for opening, closing in ("[]", "{}"):
        start, end = text.find(opening), text.rfind(closing)
        if 0 <= start < end:
            try:
                return _strings(parse_json(text[start : end + 1]))
            except ValueError:
                continue
    return [item.strip().strip('"') for item in _ITEM.findall(text)]


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [" ".join(value.encode(errors="replace").decode().split())]  # replaces lone surrogates
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in parts for text in _strings(part)]


def find_fault(sentence: str, name: str, others: Sequence[str]) -> str | None:
    """Return the reason why a sentence is unusable, if any.

    Args:
        sentence: Sentence of the model.
        name: Name of the class, without underscores.
        others: Accepted sentences of the class.

    Returns:
        The reason; None if the sentence is usable.
    """
    if not names_class(sentence, name):
        return f"does not have the words {name!r} in it"
    if not SENTENCE.matches(sentence):
        return f"is not {SENTENCE}"
    if num_tokens(sentence) > MAX_TOKENS:
        return f"has {num_tokens(sentence)} tokens, at most {MAX_TOKENS} are read"
    if len(sentence.split()) - len(name.split()) < FEWEST_WORDS:
        return "is too short"
    if class_key(sentence).rstrip(".") in {class_key(other).rstrip(".") for other in others}:
        return "is listed twice"
    return None


def sift(sentences: Sequence[str], name: str, others: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate usable sentences from the rest.

    Args:
        sentences: Sentences of the model.
        name: Name of the class, without underscores.
        others: Accepted sentences of the class.

    Returns:
        The usable sentences, and for each of the others a line with the reason.
    """
    usable: list[str] = []
    faults = []
    for sentence in sentences:
        reason = find_fault(sentence, name, [*others, *usable])
        if reason is None:
            usable.append(sentence)
        else:
            faults.append(f"{sentence[:80]!r} {reason}")
    return usable, faults
