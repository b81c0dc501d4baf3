"""What a page sends for classes, and the file that they are written to."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coft.core.errors import UserError
from coft.core.files import writing
from coft.engine.class_names import BAR, Classes, given_classes, write_classes

MOST_CLASSES, MOST_NAMES, LONGEST = 50_000, 50, 200  # of names characters
UNSEEN = {"Cc", "Cs", "Zl", "Zp"}  # kinds of characters that no name has


def drafted(content: Any, before: Classes) -> Classes:
    """Classes that a page has sent.

    Args:
        content: A list with a list of names for each class, the one that it goes by first.
        before: Those of the run. A class that goes by the same name keeps its descriptions.

    Raises:
        UserError: If it is nothing of this kind, or no classifier can be built on it.
    """
    if not isinstance(content, list) or not 2 <= len(content) <= MOST_CLASSES:
        raise UserError(f"classes: expected 2 to {MOST_CLASSES:,} of them")
    for names in content:
        if not isinstance(names, list) or not 1 <= len(names) <= MOST_NAMES:
            raise UserError(f"classes: expected 1 to {MOST_NAMES} names of each")
        for name in names:
            _check(name)
    found = given_classes([f" {BAR} ".join(names) for names in content])
    kept = {name: own for name, own in before.descriptions.items() if name in set(found.names)}
    return Classes(found.names, found.synonyms, kept)


def _check(name: Any) -> None:
    if not isinstance(name, str):
        raise UserError("classes: expected names as texts")
    if BAR in name:
        raise UserError(f"{name[:60]!r}: {BAR!r} stands between synonyms; take it out of the name")
    if len(name) > LONGEST:
        raise UserError(f"{name[:60]!r}... has {len(name)} characters; {LONGEST} are allowed")
    if any(unicodedata.category(sign) in UNSEEN for sign in name):
        raise UserError(f"{name[:60]!r} has a character that cannot be seen; take it out")


class ClassesFile:
    """Where reviewed classes are written: to a new file, which may then be replaced by the same review alone.

    Args:
        folder: Of the run. Without a path the file is called `classes-2.txt` there, or by the next number that is free.
        path: A file that does not exist.

    Raises:
        UserError: If it exists.
    """

    def __init__(self, folder: Path, path: Path | None = None) -> None:
        self.folder, self.path, self.digest = folder, path, ""
        if path is not None and path.exists():
            raise UserError(f"--to {path}: exists already, and stays as it is; give another name")

    def write(self, classes: Classes) -> str:
        """Write classes.

        Returns:
            What was not as expected, in a sentence; else "".

        Raises:
            UserError: If the disk refuses.
        """
        notice, path = "", self.path
        if self.digest and path is not None and _digest(path) != self.digest:
            notice = f"{path} has changed since you saved it, and stays as it is."
            self.digest, path = "", None
        with writing((path or self.folder).parent if path else self.folder):
            if not self.digest:
                path = self._claimed(path)
            assert path is not None
            try:
                write_classes(path, classes)
            except OSError:
                if not self.digest:
                    path.unlink(missing_ok=True)
                raise
        self.path, self.digest = path, _digest(path)
        return notice

    def _claimed(self, path: Path | None) -> Path:
        """Make an empty file where there is none."""
        choices: Sequence[Path] = [path] if path else [self.folder / f"classes-{n}.txt" for n in range(2, 10_000)]
        for choice in choices:
            try:
                choice.open("x").close()
                return choice
            except FileExistsError:
                continue
        raise UserError(f"{choices[0]}: exists already, and stays as it is; give another name by --to")


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
