"""Numbers and names as a page shows them. Names of files and classes are anybody's text; the template escapes them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence

NONE = "–"
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")  # control characters, and bytes that are no text


def short(text: str, most: int = 60) -> str:
    """A text without what cannot be seen, and its middle left out if it is longer than that."""
    seen = UNSEEN.sub("\N{REPLACEMENT CHARACTER}", str(text))
    if len(seen) <= most:
        return seen
    half = (most - 1) // 2
    return f"{seen[: most - 1 - half]}…{seen[len(seen) - half :]}"


def percent(share: float | None) -> str:
    """A share in [0, 1] in percent."""
    return NONE if share is None or not math.isfinite(share) else f"{100 * share:.1f} %"


def number(value: float | None, form: str = ".2f") -> str:
    """A number in a form of str.format."""
    return NONE if value is None or not math.isfinite(value) else f"{value:{form}}".replace("-", "\N{MINUS SIGN}")


def duration(seconds: float | None) -> str:
    """Seconds in the two largest units that they have."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def common_folder(paths: Sequence[str]) -> str:
    """The folder that all paths are in, with a slash; empty if there is none."""
    try:
        folder = os.path.commonpath({os.path.dirname(path) for path in paths})  # noqa: PTH120 (text, not a place)
    except ValueError:  # none at all, or absolute and relative ones
        return ""
    return f"{folder}/" if folder and not folder.endswith("/") else folder
