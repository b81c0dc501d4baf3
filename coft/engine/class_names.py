"""Class names from the user: on the command line or in a file, optionally with synonyms and descriptions.

The syntax of synonyms is known to this module alone.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coft.core.errors import UserError
from coft.core.files import replacing
from coft.core.paths import expanded
from coft.core.sanitize import has_controls
from coft.core.schemas import List, SchemaError, Text
from coft.core.settings import shown
from coft.core.untrusted import read_text

GENERIC = ("a photo of a {}.", "a picture of a {}.", "an image of a {}.")  # templates for images of any kind
CLASSES = "classes.txt"  # file in the output folder with the classes of the run
MAX_CLASSES = 30_000  # upper bound of the number of classes; all of ImageNet has 21,841
MAX_BYTES = 1 << 28  # upper bound of the size of a file
MARK = "\ufeff"  # byte order mark, which some editors put before a text, invisibly
MAX_NAME_LENGTH = 1000  # upper bound of the characters of a name; CLIP reads 77 tokens
BAR = "|"  # separator between a class name and its synonyms
Given = str | os.PathLike[str] | Sequence[str] | Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Classes:
    """Class names, with synonyms and descriptions.

    Attributes:
        names: C class names, by label.
        synonyms: Synonyms by class name, for the classes that have any.
        descriptions: Descriptive sentences by class name, for the classes that have any.
    """

    names: list[str]
    synonyms: dict[str, tuple[str, ...]] = field(default_factory=dict)
    descriptions: dict[str, list[str]] = field(default_factory=dict)


def read_classes(text: str, flag: str = "--classes") -> Classes:
    r"""Read class names from a command-line value or from a file.

    Args:
        text: Comma-separated names, or the path of a file with one name per line. A name may be followed by synonyms,
            and in a file also by tab-separated sentences that describe the class:
            `tabby cat | striped cat\tA cat with stripes.`
        flag: Name of the command-line flag, for error messages.

    Raises:
        UserError: If the file does not exist, is not text or is empty, or if a name is empty, duplicated, too long or
            has control characters.
    """
    path = expanded(text)
    if is_file(path):
        return _read_file(path, flag)
    if "," not in text:
        if "/" in text or path.suffix:
            raise UserError(f"{flag} {text}: no such file; give a file with a class name on each line")
        raise UserError(f"{flag} {text!r}: one name; give at least two, with commas between them, or a file's path")
    return _unique(_numbered(name.strip() for name in text.split(",")), flag)


def given_classes(classes: Given) -> Classes:
    """Convert the `classes` argument of the Python API.

    Args:
        classes: Text or path that `read_classes` reads; or a sequence of names; or a mapping from names to descriptive
            sentences. Names may be followed by synonyms in all of them.

    Raises:
        UserError: If no classifier can be built on these names.
    """
    if isinstance(classes, (str, os.PathLike)):
        if not isinstance(text := os.fspath(classes), str):
            raise UserError(f"classes is {shown(text)}; expected a text")
        result = read_classes(text, "classes")
    else:
        names = [str(name) if isinstance(name, str) else name for name in _listed(classes)]
        if wrong := [number for number, name in enumerate(names) if not isinstance(name, str)]:
            raise UserError(f"classes[{wrong[0]}] is {shown(names[wrong[0]])}; expected a text, the name of a class")
        result = _unique(_numbered(names), "classes")
        try:
            if isinstance(classes, Mapping):
                pairs = zip(result.names, classes.values(), strict=False)  # too many are refused below
                described = {name: _sentences(name, given) for name, given in pairs}
                result.descriptions.update({name: sentences for name, sentences in described.items() if sentences})
        except SchemaError as error:
            raise UserError(f"{error}; correct it") from error
    check_classnames(result.names, "classes")
    return result


def _listed(classes: Any) -> list[Any]:
    try:
        if isinstance(classes, (bytes, set, frozenset)):
            raise TypeError("they have no order")
        return list(itertools.islice(classes, MAX_CLASSES + 1))
    except TypeError as error:  # a 0-d array claims to be iterable, and is not
        raise UserError(f"classes is {shown(classes)}; expected texts in an order, the names of the classes") from error


def _sentences(name: str, given: Any) -> list[str]:
    if given is None:
        return []
    listed = given if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    List(Text(100_000, least=1, lines=True), most=1_000).check(listed, f"classes[{name!r}]")
    return list(map(str, listed))


def write_classes(path: Path, classes: Classes) -> None:
    """Write classes to a file that `read_classes` can read. The write is atomic."""
    lines = []
    for name in classes.names:
        names = f" {BAR} ".join([name, *classes.synonyms.get(name, ())])
        sentences = [" ".join(sentence.split()) for sentence in classes.descriptions.get(name, [])]
        lines.append("\t".join([names, *sentences]) + "\n")
    with replacing(path) as draft:
        draft.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")


def class_list(classes: Classes, descriptions: Mapping[str, Sequence[str]] | None) -> str:
    """Return all names and synonyms in one line, with a hash of the user's descriptions. It identifies the classes."""
    named = [[name, *classes.synonyms.get(name, ())] for name in classes.names]
    ambiguous = any(" = " in name for names in named for name in names)  # like a name with a synonym
    line = repr(named) if ambiguous else " | ".join(map(" = ".join, named))
    return f"{line} (descriptions {hash_of_sentences(descriptions)})" if descriptions else line


def hash_of_sentences(descriptions: Mapping[str, Sequence[str]]) -> str:
    """Return a hash of descriptions: 16 hexadecimal digits."""
    sentences = sorted((name, list(sentences)) for name, sentences in descriptions.items())
    return hashlib.sha256(repr(sentences).encode()).hexdigest()[:16]


def is_file(path: Path) -> bool:
    """Return whether a file exists; False also for a text that is too long for a path."""
    try:
        return path.is_file()
    except OSError:
        return False


def _read_file(path: Path, flag: str) -> Classes:
    try:
        lines = read_text(path, MAX_BYTES, "utf-8-sig").split("\n")  # `splitlines` would split within sentences, too
    except (OSError, ValueError) as error:
        raise UserError(f"{flag} {path}: cannot be read as UTF-8 text ({error}); save it as such") from error
    rows = {
        f"line {number}": [cell.strip() for cell in line.split("\t")]
        for number, line in enumerate(lines, start=1)
        if line.strip()
    }
    if not rows:
        raise UserError(f"{flag} {path}: the file is empty; write a class name on each line")
    if len(rows) == 1 and "," in next(iter(rows.values()))[0]:
        raise UserError(f"{flag} {path}: has one line with commas; write each class name on a line of its own")
    return _unique(rows, f"{flag} {path}")


def _numbered(names: Iterable[str]) -> dict[str, list[str]]:
    return {f"name {number}": [name] for number, name in enumerate(names, start=1)}


def _unique(rows: Mapping[str, list[str]], source: str) -> Classes:
    """Parse rows by place, such as "line 3": bar-separated names of a class, then its sentences. Check the names."""
    classes, places = Classes([]), dict[str, str]()
    for place, (text, *sentences) in rows.items():
        name, *synonyms = (part.replace(MARK, "").strip() for part in text.split(BAR))
        for word in (name, *synonyms):
            if not any(letter.isprintable() for letter in word):
                beside = f", beside a {BAR!r}" if synonyms else ""
                raise UserError(f"{source}: {place}: a name is empty{beside}; write one, or take it out")
            if has_controls(word):
                raise UserError(
                    f"{source}: {place}, {word!r}, has a tab or a line break, or another control character; take it out"
                )
            if len(word) > MAX_NAME_LENGTH:
                raise UserError(
                    f"{source}: {place}: a name has {len(word):,} characters, at most {MAX_NAME_LENGTH}; shorten it"
                )
        if wrong := next(filter(has_controls, sentences), None):
            raise UserError(f"{source}: a sentence of {name!r}, {wrong[:80]!r}, has a control character; take it out")
        for word in (name, *synonyms):
            if (plain := _plain(word)) in places:
                first = "" if places[plain] == place else f" (first: {places[plain]})"
                raise UserError(f"{source}: {place}, {word!r}, is listed twice{first}; remove one")
            places[plain] = place
        classes.names.append(name)
        if synonyms:
            classes.synonyms[name] = tuple(synonyms)
        if kept := [sentence for sentence in sentences if sentence]:
            classes.descriptions[name] = kept
    return classes


def _plain(name: str) -> str:
    """Return a name in lower case, with blanks for underscores and single blanks, to find duplicates."""
    return " ".join(name.replace("_", " ").lower().split())


def check_classnames(classnames: Sequence[str], source: str, distinct: bool = True) -> None:
    """Check that a classifier can be built on class names.

    Args:
        classnames: Class names by label.
        source: Origin of the names, for error messages.
        distinct: Whether names must be distinct for CLIP.

    Raises:
        UserError: On fewer than two or too many names, or a name that is empty, a duplicate, or has a bar or a control
            character.
    """
    from coft.backbones.prompts import plain_name  # here, so that a wrong path is reported without torch
    from coft.backbones.tokens import CLIP_TOKENIZER

    if len(classnames) < 2:
        raise UserError(
            f"{source}: a classifier needs at least two class names, {len(classnames)} given; add the missing names"
        )
    if len(classnames) > MAX_CLASSES:
        raise UserError(f"{source}: {len(classnames)} class names; at most {MAX_CLASSES} are read: take fewer")
    seen: dict[tuple[int, ...], int] = {}
    for label, name in enumerate(classnames):
        plain = tuple(CLIP_TOKENIZER.encode(plain_name(name)))  # normalises ligatures, quotes and entities
        if not plain:
            raise UserError(f"{source}: class {label} has an empty name ({name!r} has no tokens for CLIP); name it")
        if has_controls(name):
            raise UserError(f"{source}: the name of class {label}, {name!r}, has a control character; take it out")
        if BAR in name:
            raise UserError(
                f"{source}: the name of class {label} is {name!r}; {BAR!r} separates synonyms, which "
                f"only classes of your own images can have; remove it"
            )
        if plain in seen and distinct:
            other = classnames[seen[plain]]
            alike = "" if name == other else f" (CLIP reads {other!r} as the same)"
            raise UserError(
                f"{source}: classes {seen[plain]} and {label} have the same name {name!r}{alike}; rename one, or merge "
                f"them"
            )
        seen[plain] = label
