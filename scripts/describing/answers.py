"""What a model answered: the sentences in it, and which of them can be used."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from coft.backbones.descriptions import MAX_TOKENS, class_key, names_class, num_tokens

FEWEST_WORDS = 5  # beside the class name's own
_THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_ITEM = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+(.+)$", re.MULTILINE)


def sentences_in(answer: str) -> list[str]:
    """Find the sentences of an answer: a JSON list, alone or within an object or other text, else a list's lines.

    Returns:
        What stands there, unchecked; empty if there is no list.
    """
    text = _THOUGHTS.sub("", answer)
    for opening, closing in ("[]", "{}"):
        start, end = text.find(opening), text.rfind(closing)
        if 0 <= start < end:
            try:
                return _strings(json.loads(text[start : end + 1]))
            except (ValueError, RecursionError):
                continue
    return [item.strip().strip('"') for item in _ITEM.findall(text)]


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [" ".join(value.encode(errors="replace").decode().split())]  # half a character is none
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in parts for text in _strings(part)]


def fault(sentence: str, name: str, others: Sequence[str]) -> str | None:
    """Say why a sentence cannot be used.

    Args:
        sentence: What the model wrote.
        name: Name of the class, without underscores.
        others: Sentences of the class that are accepted already.

    Returns:
        The reason, None if there is none.
    """
    if not names_class(sentence, name):
        return f"does not have the words {name!r} in it"
    if num_tokens(sentence) > MAX_TOKENS:
        return f"has {num_tokens(sentence)} tokens, at most {MAX_TOKENS} are read"
    if len(sentence.split()) - len(name.split()) < FEWEST_WORDS:
        return "says too little"
    if class_key(sentence).rstrip(".") in {class_key(other).rstrip(".") for other in others}:
        return "stands there twice"
    return None


def sift(sentences: Sequence[str], name: str, others: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part usable sentences from those that are not.

    Returns:
        The usable ones, and a line for each of the rest.
    """
    good: list[str] = []
    faults = []
    for sentence in sentences:
        reason = fault(sentence, name, [*others, *good])
        if reason is None:
            good.append(sentence)
        else:
            faults.append(f"{sentence[:80]!r} {reason}")
    return good, faults
