"""Conversion of icon file names to natural words: without style and size suffixes, and with digits as words."""

import re
from functools import cache


def _set_of(words: str) -> frozenset[str]:
    return frozenset(words.split())


STYLES = _set_of(
    """alt baseline bold border broken color colored colour curved duo duotone fill filled flat glyph inline light
    line linear medium micro mini monochrome o outline outlined pencil plain pop print regular remix rounded sharp
    solid stroke thick thin twotone"""
)
SIZES = _set_of("10 12 14 15 16 18 20 24 28 30 32 36 40 48 xs sm md lg xl small large")
SKINS = re.compile(r"-(?:medium-light|medium-dark|light|medium|dark)-skin-tone")
LEADING = _set_of("baseline outline round sharp twotone keycap")
NUMBERING = _set_of(
    """box circle counter diamond dice die digit hexagon keycap looks number numbers numeric octagon pentagon rhombus
    square squircle triangle"""
)
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@cache
def concept(name: str) -> str:
    """Return the words of an icon's name without style, size and variant marks; "" if nothing is left.

    Example:
        >>> concept("heart-outline-24"), concept("calendar-2-line"), concept("numeric-7")
        ('heart', 'calendar', 'numeric 7')
    """
    words = [word for word in re.split(r"[-_ ]+", SKINS.sub("", name.lower())) if word]
    words = _strip_trailing(words)
    if len(words) > 1 and words[0] in LEADING:
        words = words[1:]
    return " ".join(words)


def _strip_trailing(words: list[str]) -> list[str]:
    while len(words) > 1 and (words[-1] in STYLES or words[-1] in SIZES or _is_variant(words)):
        words = words[:-1]
    if len(words) > 1 and words[-1] == "round":  # "round" closes style names, but "table round" is a shape too
        words = words[:-1]
    return words


def _is_variant(words: list[str]) -> bool:
    return bool(re.fullmatch(r"0?\d", words[-1])) and not NUMBERING.intersection(words[:-1])


def spoken(text: str) -> str:
    """Replace single digits by words: "numeric 7" becomes "numeric seven"."""
    return " ".join(DIGITS[int(word)] if re.fullmatch(r"\d", word) else word for word in text.split())
