"""Whether the message of a clean error is one that helps: it names the input and says what to do, in a line."""

from __future__ import annotations

from .case import Found, Result

REMEDIES = ("; ", "expected", "did you mean", "known are", "known ones", "--help says", "give ", "see to ")
LONGEST = 800  # characters


def faults_of(result: Result) -> list[str]:
    """What is wrong with a message; nothing with most."""
    if result.found is not Found.CLEAN:
        return []
    line, found = result.line, []
    if result.case.names and not any(name in line for name in result.case.names):
        found.append("does not name the input")
    if not any(words in line for words in REMEDIES):
        found.append("does not say what to do")
    if not line.isprintable() or len(line) > LONGEST:
        found.append("is more than a line, or not escaped")
    return found
