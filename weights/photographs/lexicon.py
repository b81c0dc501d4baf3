"""Names, their meanings and frequencies, and words of CLIP's vocabulary that are not nouns of WordNet."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from weights.photographs.captions import TOKENIZER
from weights.photographs.wordnet import Synset, ancestors, read_lines

PHYSICAL = 1930  # offset of "physical entity", the ancestor of all visible meanings
UNSEEN = 0.25  # factor for a meaning that is not visible, or is a named individual
WORD = re.compile(r"[a-z]{3,}")


def read_counts(archive: Path) -> dict[tuple[str, int], int]:
    """Read how often WordNet's authors found each noun with each meaning, by name in lower case and offset."""
    rows = [line.split() for line in read_lines(archive, "dict/index.sense")]
    nouns = ((key.split("%1:")[0], offset, count) for key, offset, _, count in rows if "%1:" in key)
    return {(name.replace("_", " "), int(offset)): int(count) for name, offset, count in nouns}


def can_be_seen(synset: Synset, nouns: Mapping[int, Synset]) -> bool:
    """Return whether a meaning is a kind of physical entity, and not a named individual."""
    return not synset.instance and PHYSICAL in ancestors(synset.offset, nouns)


def meanings_of(
    nouns: Mapping[int, Synset], counts: Mapping[tuple[str, int], int], seen: Collection[int]
) -> dict[str, list[tuple[int, float]]]:
    """Return the meanings of each name, with shares.

    Args:
        nouns: Synsets by offset.
        counts: Frequency of each pair of name and meaning.
        seen: Offsets of visible meanings.

    Returns:
        Offsets and shares by name in lower case. Shares sum to 1 and are proportional to the count plus one, times
        `UNSEEN` for a meaning that is not visible.
    """
    weights: dict[str, list[tuple[int, float]]] = {}
    for offset, synset in nouns.items():
        visible = 1.0 if offset in seen else UNSEEN
        for name in dict.fromkeys(word.lower() for word in synset.names):
            weights.setdefault(name, []).append((offset, visible * (1 + counts.get((name, offset), 0))))
    return {name: _shares(rows) for name, rows in weights.items()}


def _shares(rows: list[tuple[int, float]]) -> list[tuple[int, float]]:
    total = sum(weight for _, weight in rows)
    return [(offset, weight / total) for offset, weight in rows]


def plural(name: str) -> str:
    """Return the plural of a name, by spelling rules only."""
    if re.search(r"[^aeiou]y$", name):
        return f"{name[:-1]}ies"
    return f"{name}es" if re.search(r"(s|x|z|ch|sh)$", name) else f"{name}s"


def other_words(names: Mapping[str, object]) -> list[str]:
    """Return whole words of CLIP's vocabulary that are not names in WordNet: adjectives, plurals, brands and so on."""
    ends = (token[: -len("</w>")] for token in TOKENIZER.encoder if token.endswith("</w>"))
    return [word for word in ends if WORD.fullmatch(word) and word not in names]
