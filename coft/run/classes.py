"""Class names as users give them: in the command, or in a file, with descriptions if they like."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from coft.runtime.errors import UserError

GENERIC = ("a photo of a {}.", "a picture of a {}.", "an image of a {}.")  # templates, of images of anything
Classes = dict[str, list[str]]  # sentences that describe a class, by its name; in order of label
Given = str | os.PathLike[str] | Sequence[str] | Mapping[str, Sequence[str]]


def read_classes(text: str, flag: str = "--classes") -> Classes:
    r"""Read class names.

    Args:
        text: Names with commas between them, or the path of a file with a name on each line, after which, with tabs
            between them, sentences that describe the class may stand: `tabby cat\tA cat with stripes.`
        flag: What the user calls it, for errors.

    Raises:
        UserError: If there is no such file, it is no text, or it has no name.
    """
    path = Path(text).expanduser()
    if is_file(path):
        return _read_file(path, flag)
    if "," not in text:
        if "/" in text or path.suffix:
            raise UserError(f"{flag} {text}: no such file; give a file with a class name on each line")
        raise UserError(f"{flag} {text!r}: one name; write names with commas between them, or a file's path")
    return _unique([[name.strip()] for name in text.split(",")], flag)


def given_classes(classes: Given) -> Classes:
    """Classes as a program gives them.

    Args:
        classes: What `read_classes` reads; or names; or sentences that describe each class, by its name.

    Raises:
        UserError: If these are no names that a classifier can be built on.
    """
    if isinstance(classes, (str, os.PathLike)):
        found = read_classes(os.fspath(classes), "classes")
    elif isinstance(classes, Mapping):
        found = {name: list(sentences) for name, sentences in classes.items()}
    else:
        names = list(classes)
        if wrong := next((name for name in names if not isinstance(name, str)), None):
            raise UserError(f"classes has {wrong!r}; expected texts, the names of the classes")
        found = _unique([[name.strip()] for name in names], "classes")
    check_classnames(list(found), "classes")
    return found


def is_file(path: Path) -> bool:
    """Whether there is such a file; a text too long for a path is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _read_file(path: Path, flag: str) -> Classes:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{flag} {path}: cannot be read as UTF-8 text ({error}); save it as such") from error
    rows = [[cell.strip() for cell in line.split("\t")] for line in lines if line.strip()]
    if not rows:
        raise UserError(f"{flag} {path}: the file is empty; write a class name on each line")
    return _unique(rows, f"{flag} {path}")


def _unique(rows: list[list[str]], source: str) -> Classes:
    classes: Classes = {}
    for number, (name, *sentences) in enumerate(rows, start=1):
        if not name:
            raise UserError(f"{source}: name {number} is empty; give it one, or take it out")
        if name in classes:
            raise UserError(f"{source}: {name!r} stands there twice; take one out")
        classes[name] = [sentence for sentence in sentences if sentence]
    return classes


def check_classnames(classnames: Sequence[str], source: str, distinct: bool = True) -> None:
    """Refuse class names that no classifier could be built on.

    Args:
        classnames: Names by label.
        source: What has them, for the error message.
        distinct: Whether a name that stands twice is refused.

    Raises:
        UserError: On fewer than two names, on an empty one, or on one that stands twice.
    """
    if len(classnames) < 2:
        raise UserError(
            f"{source}: a classifier needs at least two class names, {len(classnames)} given; add the missing names"
        )
    seen: dict[str, int] = {}
    for label, name in enumerate(classnames):
        plain = " ".join(name.replace("_", " ").lower().split())
        if not plain:
            raise UserError(f"{source}: class {label} has an empty name; give it one")
        if plain in seen and distinct:
            raise UserError(
                f"{source}: classes {seen[plain]} and {label} have the same name {name!r}; rename one, or merge them"
            )
        seen[plain] = label
