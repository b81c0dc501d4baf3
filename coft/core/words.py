"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """Format a number with its noun: "1 file", "2,000 files".

    Args:
        number: The number.
        one: Singular of the noun.
        many: Plural of the noun; "" to append an s to the singular.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
