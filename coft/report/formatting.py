"""Formatting of numbers and names for the page. Names of files and classes are escaped later, by the template."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence

DASH = "–"
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")  # with undecodable bytes


def short(text: str, limit: int = 60) -> str:
    """Shorten a text to at most `limit` characters by an ellipsis in the middle, and replace control characters."""
    visible = CONTROL_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", str(text))
    if len(visible) <= limit:
        return visible
    half = (limit - 1) // 2
    return f"{visible[: limit - 1 - half]}…{visible[len(visible) - half :]}"


def percent(share: float | None) -> str:
    """Format a share in [0, 1] as a percentage; a dash for None and values that are not finite."""
    return DASH if share is None or not math.isfinite(share) else f"{100 * share:.1f} %"


def number(value: float | None, form: str = ".2f") -> str:
    """Format a number by a format specification; a dash for None and values that are not finite."""
    return DASH if value is None or not math.isfinite(value) else f"{value:{form}}".replace("-", "\N{MINUS SIGN}")


def duration(seconds: float | None) -> str:
    """Format a time in seconds, such as "2 h 1 min", "1 min 15 s" or "4.2 s"; a dash for None and non-finite values."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def common_folder(paths: Sequence[str]) -> str:
    """Return the deepest folder that contains all paths, with a slash at the end; empty if there is none."""
    try:
        folder = os.path.commonpath({os.path.dirname(path) for path in paths})  # noqa: PTH120 (text, not a place)
    except ValueError:  # no paths, or absolute and relative ones
        return ""
    return f"{folder}/" if folder and not folder.endswith("/") else folder
