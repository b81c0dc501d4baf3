import pytest

from weights.pretrain.names import concept, spoken


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("heart-outline", "heart"),
        ("calendar-24-regular", "calendar"),
        ("calendar-2-line", "calendar"),
        ("baseline-face", "face"),
        ("numeric-7", "numeric 7"),
        ("circle-number-7", "circle number 7"),
        ("waving-hand-medium-light-skin-tone", "waving hand"),
        ("7", "7"),
        ("line", "line"),
        ("T-Shirt", "t shirt"),
        ("arrow-left-bold-duotone", "arrow left"),
    ],
)
def test_concept_drops_style_and_size(name, expected):
    assert concept(name) == expected


def test_single_digits_become_words():
    assert spoken("numeric 7 of 24") == "numeric seven of 24"
