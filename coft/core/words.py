"""Numbers as a sentence has them."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """A number of things: "1 file", "2,000 files".

    Args:
        number: How many.
        one: The word for one of them.
        many: The word for several; "" for the first with an s.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
