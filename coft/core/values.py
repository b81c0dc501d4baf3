"""What a text says that a user wrote as a value: in a file of YAML, or on the command line."""

from __future__ import annotations

import ast
import re
import warnings
from typing import Any

from .settings import Key

QUOTED = re.compile(r"""\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\s*""", re.S)


def literal(text: str) -> Any:
    """What Python reads in a text, such as a number or a list; the text itself if it is nothing of the kind."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def unquoted(text: str) -> Any:
    """A text from the command line: without the quotes that are around it; a number if it looks like one."""
    value = literal(text)
    return text if isinstance(value, str) and not QUOTED.fullmatch(text) else value


def evaluated(key: Key, value: Any) -> Any:
    """What a key's value says: YAML has a text where it does not see a number (1e-4), and knows no tuples."""
    if key.kind is str:
        return value
    value = literal(value) if isinstance(value, str) else value
    if key.entry in (int, float, bool) and isinstance(value, (list, tuple)):
        return [literal(entry) if isinstance(entry, str) else entry for entry in value]
    return value
