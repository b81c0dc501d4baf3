"""Numbers in sentences."""

from __future__ import annotations

import pytest

from coft.core.words import counted


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (0, ["file"], "0 files"),
        (1, ["file"], "1 file"),
        (2000, ["image"], "2,000 images"),
        (1, ["class", "classes"], "1 class"),
        (3, ["class", "classes"], "3 classes"),
    ],
)
def test_a_number_of_things(number: int, words: list[str], said: str) -> None:
    assert counted(number, *words) == said
