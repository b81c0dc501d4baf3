"""Text that others wrote, as it may be shown: one line, nothing that a terminal obeys, no secret."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence

LONGEST = 700  # characters of a line
TAIL = 200  # of them, those at the end, where a message says what to do
HIDDEN = "***"
CREDENTIALS = re.compile(r"""(?i)\b([a-z][a-z0-9+.-]*://)[^\s'"]*@""")  # user and password of an address
SECRET_NAME = re.compile(r"(?i)(key|token|secret|password|passwd)$")  # of variables of the environment
FEW = 12  # names that are shown
CONTROLS = {"Cc", "Cs", "Zl", "Zp"}  # Unicode categories: what a terminal obeys, ends of lines, half characters
SHORTEST_SECRET = 6  # characters; less would hide words


def one_line(text: str) -> str:
    """A text as one line: control characters are escaped, secrets hidden, the middle of a long text is left out."""
    plain = escaped(without_secrets(text))
    if len(plain) > LONGEST:
        plain = f"{plain[: LONGEST - TAIL]} ... {plain[-TAIL:]}"
    return plain


def escaped(text: str) -> str:
    """A text in which what a terminal may obey is escaped as in Python."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def has_controls(text: str) -> bool:
    """Whether a text has a character that is to be in no name or sentence: a control, an end of a line, half of one."""
    return not text.isprintable() and any(unicodedata.category(character) in CONTROLS for character in text)


def some_of(names: Sequence[str]) -> str:
    """Names with commas between them; of many, the first ones and how many there are more."""
    more = f" and {len(names) - FEW:,} more" if len(names) > FEW else ""
    return one_line(", ".join(names[:FEW])) + more


def without_secrets(text: str) -> str:
    """A text without user names and passwords of addresses, and without what secret variables hold."""
    for secret in _secrets():
        text = text.replace(secret, HIDDEN)
    return CREDENTIALS.sub(rf"\1{HIDDEN}@", text) if "@" in text else text


def _secrets() -> list[str]:
    """What secret variables of the environment hold, in all forms in which a message may repeat it; longest first."""
    values = [value for name, value in os.environ.items() if SECRET_NAME.search(name)]
    forms = {form for value in values for form in (value, value.strip(), repr(value)[1:-1], *value.split())}
    return sorted((form for form in forms if len(form) >= SHORTEST_SECRET), key=len, reverse=True)
