"""Class names as users give them: in the command, or in a file, with synonyms and descriptions if they like.

Nothing else knows how synonyms are written.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coft.core.errors import UserError
from coft.core.files import replacing
from coft.core.forms import List, Misfit, Text
from coft.core.outside import read_text
from coft.core.paths import expanded
from coft.core.sanitize import has_controls
from coft.core.settings import shown

GENERIC = ("a photo of a {}.", "a picture of a {}.", "an image of a {}.")  # templates, of images of anything
CLASSES = "classes.txt"  # in the output folder: the classes as the run had them
MOST = 30_000  # classes; ImageNet has 21,841 in all
MOST_BYTES = 1 << 28  # of a file
MARK = "\ufeff"  # which some editors put before a text; nobody sees it
LONGEST = 1000  # characters of a name; CLIP reads 77 tokens
BAR = "|"  # between a class name and its synonyms
Given = str | os.PathLike[str] | Sequence[str] | Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Classes:
    """Classes as a user means them.

    Attributes:
        names: C names, by label.
        synonyms: Other names, by class name; of classes that have some.
        descriptions: Sentences that describe a class, likewise.
    """

    names: list[str]
    synonyms: dict[str, tuple[str, ...]] = field(default_factory=dict)
    descriptions: dict[str, list[str]] = field(default_factory=dict)


def read_classes(text: str, flag: str = "--classes") -> Classes:
    r"""Read class names.

    Args:
        text: Names with commas between them, or the path of a file with a name on each line. A name may be followed by
            synonyms, and in a file, with tabs between them, by sentences that describe the class:
            `tabby cat | striped cat\tA cat with stripes.`
        flag: What the user calls it, for errors.

    Raises:
        UserError: If there is no such file, it is no text, it has no name, or one that is empty or stands twice.
    """
    path = expanded(text)
    if is_file(path):
        return _read_file(path, flag)
    if "," not in text:
        if "/" in text or path.suffix:
            raise UserError(f"{flag} {text}: no such file; give a file with a class name on each line")
        raise UserError(f"{flag} {text!r}: one name; give at least two, with commas between them, or a file's path")
    return _unique([[name.strip()] for name in text.split(",")], flag)


def given_classes(classes: Given) -> Classes:
    """Classes as a program gives them.

    Args:
        classes: What `read_classes` reads; or names; or sentences that describe each class, by its name. Names may be
            followed by synonyms there, too.

    Raises:
        UserError: If these are no names that a classifier can be built on.
    """
    if isinstance(classes, (str, os.PathLike)):
        if not isinstance(text := os.fspath(classes), str):
            raise UserError(f"classes is {shown(text)}; expected a text")
        result = read_classes(text, "classes")
    else:
        names = [str(name) if isinstance(name, str) else name for name in _listed(classes)]
        if wrong := [number for number, name in enumerate(names) if not isinstance(name, str)]:
            raise UserError(f"classes[{wrong[0]}] is {shown(names[wrong[0]])}; expected a text, the name of a class")
        result = _unique([[name] for name in names], "classes")
        try:
            if isinstance(classes, Mapping):
                pairs = zip(result.names, classes.values(), strict=True)
                described = {name: _sentences(name, given) for name, given in pairs}
                result.descriptions.update({name: sentences for name, sentences in described.items() if sentences})
        except Misfit as error:
            raise UserError(f"{error}; mend it") from error
    check_classnames(result.names, "classes")
    return result


def _listed(classes: Any) -> list[Any]:
    try:
        if isinstance(classes, (bytes, set, frozenset)):
            raise TypeError("they have no order")
        return list(itertools.islice(classes, MOST + 1))
    except TypeError as error:  # an array of no dimension says that it can be gone through, and cannot
        raise UserError(f"classes is {shown(classes)}; expected texts in an order, the names of the classes") from error


def _sentences(name: str, given: Any) -> list[str]:
    if given is None:
        return []
    listed = given if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    List(Text(100_000, least=1, lines=True), most=1_000).check(listed, f"classes[{name!r}]")
    return list(map(str, listed))


def write_classes(path: Path, classes: Classes) -> None:
    """Write a file that `read_classes` reads, whole or not at all."""
    lines = []
    for name in classes.names:
        names = f" {BAR} ".join([name, *classes.synonyms.get(name, ())])
        sentences = [" ".join(sentence.split()) for sentence in classes.descriptions.get(name, [])]
        lines.append("\t".join([names, *sentences]) + "\n")
    with replacing(path) as draft:
        draft.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")


def class_list(names: Sequence[str], synonyms: Mapping[str, Sequence[str]]) -> str:
    """All names in one line, to know the same classes by."""
    return " | ".join(" = ".join([name, *synonyms.get(name, ())]) for name in names)


def is_file(path: Path) -> bool:
    """Whether there is such a file; a text too long for a path is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _read_file(path: Path, flag: str) -> Classes:
    try:
        lines = read_text(path, MOST_BYTES, "utf-8-sig").split("\n")  # `splitlines` would split within sentences, too
    except (OSError, ValueError) as error:
        raise UserError(f"{flag} {path}: cannot be read as UTF-8 text ({error}); save it as such") from error
    rows = [[cell.strip() for cell in line.split("\t")] for line in lines if line.strip()]
    if not rows:
        raise UserError(f"{flag} {path}: the file is empty; write a class name on each line")
    return _unique(rows, f"{flag} {path}")


def _unique(rows: list[list[str]], source: str) -> Classes:
    """Classes of rows, each the names of a class with bars between them, then sentences."""
    classes = Classes([])
    exact, firsts, others = set[str](), set[str](), set[str]()
    for number, (text, *sentences) in enumerate(rows, start=1):
        name, *synonyms = (part.replace(MARK, "").strip() for part in text.split(BAR))
        for word in (name, *synonyms):
            if not any(letter.isprintable() for letter in word):
                beside = f", beside a {BAR!r}" if synonyms else ""
                raise UserError(f"{source}: name {number} is empty{beside}; give it one, or take it out")
            if has_controls(word):
                raise UserError(
                    f"{source}: name {number}, {word!r}, has a tab or a line break, or another control character; take "
                    f"it out"
                )
            if len(word) > LONGEST:
                raise UserError(f"{source}: name {number} has {len(word):,} characters, at most {LONGEST}; shorten it")
        if wrong := next(filter(has_controls, sentences), None):
            raise UserError(f"{source}: a sentence of {name!r}, {wrong[:80]!r}, has a control character; take it out")
        if name in exact or _plain(name) in others:
            raise UserError(f"{source}: {name!r} stands there twice; take one out")
        exact.add(name)
        firsts.add(_plain(name))
        for synonym in synonyms:
            if _plain(synonym) in firsts or _plain(synonym) in others:
                raise UserError(f"{source}: {synonym!r} stands there twice; take one out")
            others.add(_plain(synonym))
        classes.names.append(name)
        if synonyms:
            classes.synonyms[name] = tuple(synonyms)
        if kept := [sentence for sentence in sentences if sentence]:
            classes.descriptions[name] = kept
    return classes


def _plain(name: str) -> str:
    """A name without what makes no difference."""
    return " ".join(name.replace("_", " ").lower().split())


def _beside(name: str, other: str) -> str:
    return "" if name == other else f" (CLIP reads {other!r} as the same)"


def check_classnames(classnames: Sequence[str], source: str, distinct: bool = True) -> None:
    """Refuse class names that no classifier could be built on.

    Args:
        classnames: Names by label.
        source: What has them, for the error message.
        distinct: Whether a name that stands twice is refused.

    Raises:
        UserError: On fewer than two names, on an empty one, on one with a bar, or on one that stands twice.
    """
    from coft.backbones.prompts import plain_name  # here: a wrong path is known without torch
    from coft.backbones.tokens import CLIP_TOKENIZER

    if len(classnames) < 2:
        raise UserError(
            f"{source}: a classifier needs at least two class names, {len(classnames)} given; add the missing names"
        )
    if len(classnames) > MOST:
        raise UserError(f"{source}: {len(classnames)} class names; at most {MOST} are read: take fewer")
    seen: dict[tuple[int, ...], int] = {}
    for label, name in enumerate(classnames):
        plain = tuple(CLIP_TOKENIZER.encode(plain_name(name)))  # which makes one of ligatures, quotes and entities
        if not plain:
            raise UserError(f"{source}: class {label} has an empty name ({name!r} is nothing to CLIP); give it one")
        if has_controls(name):
            raise UserError(f"{source}: the name of class {label}, {name!r}, has a control character; take it out")
        if BAR in name:
            raise UserError(
                f"{source}: the name of class {label} is {name!r}; {BAR!r} stands between synonyms, in the classes of "
                f"your own images alone: take it out"
            )
        if plain in seen and distinct:
            other = classnames[seen[plain]]
            raise UserError(
                f"{source}: classes {seen[plain]} and {label} have the same name {name!r}{_beside(name, other)}; "
                f"rename one, or merge them"
            )
        seen[plain] = label
