"""Nouns of WordNet: their names, meanings and kinds."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS_OF = ("@", "@i")  # WordNet's pointer symbols for a hypernym, and for the class of an instance
INSTANCE = "@i"
DATABASE = "package/WNdb-3.0.tar.gz"


@dataclass(frozen=True)
class Synset:
    """A meaning.

    Attributes:
        offset: Its number in WordNet 3.0, to which ImageNet prepends "n".
        names: Lemmas, the most common one first.
        gloss: Definition, without examples.
        parents: Offsets of the meanings that it is a kind of.
        instance: Whether it is a named individual, such as a town.
    """

    offset: int
    names: tuple[str, ...]
    gloss: str
    parents: tuple[int, ...]
    instance: bool


def read_nouns(archive: Path) -> dict[int, Synset]:
    """Read the nouns of WordNet 3.0 from the npm package WNdb.

    Args:
        archive: Path of the package, a tar archive that contains the archive of the database.

    Returns:
        Synsets by offset, in the order of the database.
    """
    return {synset.offset: synset for synset in map(parse, read_lines(archive, "dict/data.noun")) if synset}


def read_lines(archive: Path, member: str) -> list[str]:
    """Read a file of WordNet's database, which is an archive inside the npm package."""
    with tarfile.open(archive) as package, tarfile.open(fileobj=package.extractfile(DATABASE)) as database:
        file: Any = database.extractfile(member)
        return file.read().decode("ascii").splitlines()


def parse(line: str) -> Synset | None:
    """Parse a line of WordNet's `data.noun`; None for a line of its licence.

    wndb(5WN) documents the format: offset, file, kind, number of words (hexadecimal), words with their identifiers,
    number of pointers, pointers of four fields, a bar, and the gloss.
    """
    if line.startswith("  "):
        return None
    fields, gloss = line.split(" | ", 1)
    words = fields.split(" ")
    count = int(words[3], 16)
    names = tuple(word.replace("_", " ") for word in words[4 : 4 + 2 * count : 2])
    pointers = words[5 + 2 * count :]
    kinds = [(pointers[i], int(pointers[i + 1])) for i in range(0, len(pointers) - 3, 4) if pointers[i] in KINDS_OF]
    instance = any(mark == INSTANCE for mark, _ in kinds)
    meaning = gloss.split('; "')[0].split(";")[0].strip()
    return Synset(int(words[0]), names, meaning, tuple(offset for _, offset in kinds), instance)


def ancestors(offset: int, nouns: Mapping[int, Synset]) -> Iterator[int]:
    """Yield the offsets of a meaning and of all its ancestors, each once, the nearest first."""
    seen, level = {offset}, [offset]
    while level:
        yield from level
        level = list(dict.fromkeys(parent for child in level for parent in nouns[child].parents if parent not in seen))
        seen.update(level)


def leaves_below(classes: Iterable[int], nouns: Mapping[int, Synset]) -> dict[int, list[int]]:
    """Find the classes below each meaning.

    Args:
        classes: Offsets of the classes, by label.
        nouns: Synsets by offset.

    Returns:
        Labels by offset, for every meaning with classes below it.
    """
    below: dict[int, list[int]] = {}
    for label, offset in enumerate(classes):
        for above in ancestors(offset, nouns):
            below.setdefault(above, []).append(label)
    return below
