"""Errors that the user can fix: they end a run with one line and exit code 2."""

from __future__ import annotations

import argparse
import difflib
import errno
from collections.abc import Iterable
from typing import Any, NoReturn

from .sanitize import one_line


class UserError(Exception):
    """An error that the user can fix. The message names the cause, what was expected, and what to do.

    Data loader workers re-raise an exception with their whole traceback as its message; `line` extracts the original
    message from it.
    """

    @property
    def line(self) -> str:
        """The message as one line that is safe to print: control characters escaped, secrets hidden."""
        text = str(self).strip()
        if text.startswith("Caught ") and "Traceback" in text:
            text = text.rsplit(f"{type(self).__name__}: ", maxsplit=1)[-1]
        return one_line(text)


class Parser(argparse.ArgumentParser):
    """Argument parser that reports an error in one line. Abbreviated flags are not accepted."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """Raise a UserError where argparse would print its usage and exit."""
        flag = next((word.split("=")[0] for word in message.split() if word.startswith("--")), "")
        longer = [name for name in self._option_string_actions if name.startswith(flag)]
        flags = longer or self._option_string_actions
        meant = nearest(flag, flags) if message.startswith("unrecognized") else ""
        hint = f"did you mean {meant}?" if meant else f"{self.prog} --help lists what is available"
        raise UserError(f"{message}; {hint}")


def first_line(error: BaseException, most: int = 200) -> str:
    """Return the first line of a message, at most `most` characters; the type of the error if it has no message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:most]


def in_a_line(error: BaseException, most: int = 160) -> str:
    """Return a message with its lines joined, at most `most` characters; the type of the error if it has no message."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error of torch means that a device, CPU or GPU, is out of memory."""
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError)
        and any(words in str(error) for words in ("DefaultCPUAllocator", "out of memory"))
    )


REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room, and give the same command again"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "check its permissions, or choose another place"),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP), "give a shorter path"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "let more files be open (ulimit -n), or take fewer workers"),
}


def remedy(error: BaseException) -> str:
    """Return what the user can do about an error of the operating system, or of a library that writes a file."""
    return REMEDIES.get(getattr(error, "errno", None) or 0, "see to the path and the disk")


MAX_LISTED = 40  # choices up to which all are listed


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return the choice that is most similar to a name, ignoring case; empty if none is similar."""
    lowered = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return lowered[near[0]] if near else ""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Suggest the most similar choice. If none is similar, list all choices, or the five nearest of many.

    Args:
        name: Name that the user wrote.
        choices: Accepted names.

    Returns:
        A clause to append to an error message.
    """
    choices = list(choices)
    if near := nearest(name, choices):
        return f"did you mean {near!r}?"
    if len(choices) > MAX_LISTED:
        lowered = {choice.lower(): choice for choice in choices}
        some = difflib.get_close_matches(name.lower(), lowered, n=5, cutoff=0.0)
        return f"the nearest of {len(choices)} known ones: {', '.join(lowered[key] for key in some)}"
    return f"known are: {', '.join(choices)}"
