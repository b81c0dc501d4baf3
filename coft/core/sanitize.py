"""Sanitising of text from outside before it is printed: one line, no control characters, no secrets."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence

MAX_LINE_LENGTH = 700  # characters
TAIL_LENGTH = 200  # characters kept at the end of a longer line, where the message gives advice
HIDDEN = "***"
CREDENTIALS = re.compile(r"""(?i)\b([a-z][a-z0-9+.-]*://)[^\s'"]*@""")  # user and password in a URL
SECRET_NAME = re.compile(r"(?i)(key|token|secret|password|passwd)$")  # names of environment variables
MAX_LISTED = 12  # names in a message
CONTROLS = {"Cc", "Cs", "Zl", "Zp"}  # Unicode categories: controls, surrogates, line and paragraph separators
MIN_SECRET_LENGTH = 6  # characters; a shorter limit would hide ordinary words


def one_line(text: str) -> str:
    """Return a text as one line: control characters are escaped, secrets hidden, and long texts cut in the middle."""
    plain = escaped(without_secrets(text))
    if len(plain) > MAX_LINE_LENGTH:
        plain = f"{plain[: MAX_LINE_LENGTH - TAIL_LENGTH]} ... {plain[-TAIL_LENGTH:]}"
    return plain


def escaped(text: str) -> str:
    """Escape all characters that are not printable, as in a Python string."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def has_controls(text: str) -> bool:
    """Return whether a text has a control character, a line or paragraph separator, or a lone surrogate."""
    return not text.isprintable() and any(unicodedata.category(character) in CONTROLS for character in text)


def some_of(names: Sequence[str]) -> str:
    """Join names with commas; of more than `MAX_LISTED`, only the first ones, with the number of the others."""
    more = f" and {len(names) - MAX_LISTED:,} more" if len(names) > MAX_LISTED else ""
    return one_line(", ".join(names[:MAX_LISTED])) + more


def without_secrets(text: str) -> str:
    """Hide user names and passwords in URLs, and values of secret environment variables."""
    for secret in _secrets():
        text = text.replace(secret, HIDDEN)
    return CREDENTIALS.sub(rf"\1{HIDDEN}@", text) if "@" in text else text


def _secrets() -> list[str]:
    """Return the values of secret environment variables, in all forms that a message may repeat; longest first."""
    values = [value for name, value in os.environ.items() if SECRET_NAME.search(name)]
    forms = {form for value in values for form in (value, value.strip(), repr(value)[1:-1], *value.split())}
    return sorted((form for form in forms if len(form) >= MIN_SECRET_LENGTH), key=len, reverse=True)
