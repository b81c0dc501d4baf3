"""Numbers and durations in sentences."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """Format a number with its noun: "1 file", "2,000 files".

    Args:
        number: The number.
        one: Singular of the noun.
        many: Plural of the noun; "" to append an s to the singular.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def about(seconds: float) -> str:
    """Format a rounded duration: "90 s", "12 min", "2.5 h"."""
    minutes = seconds / 60
    if minutes >= 90:
        return f"{minutes / 60:.1f} h"
    return f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"
