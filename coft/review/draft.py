"""Class drafts that a page sends, and the file that they are written to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coft.core.errors import UserError
from coft.core.files import writing
from coft.core.schemas import List, SchemaError, Text
from coft.core.untrusted import read_bytes
from coft.engine.class_names import BAR, MAX_BYTES, Classes, given_classes, write_classes

MOST_CLASSES, MOST_NAMES, LONGEST = 50_000, 50, 200  # upper bounds: classes, names per class, characters per name
SCHEMA = List(List(Text(LONGEST), 1, MOST_NAMES), 2, MOST_CLASSES)  # for each class its name, then its synonyms


def classes_from_draft(content: Any, run_classes: Classes) -> Classes:
    """Validate the classes that a page has sent, and return them.

    Args:
        content: List with a list of names for each class: its name, then its synonyms.
        run_classes: Classes of the run. A class that keeps its name keeps its descriptions.

    Raises:
        UserError: If the content has another form, or if no classifier can be built from the names.
    """
    try:
        SCHEMA.check(content, "classes")
    except SchemaError as error:
        raise UserError(str(error)) from error
    if barred := [name for class_names in content for name in class_names if BAR in name]:
        raise UserError(f"{barred[0]!r}: {BAR!r} separates synonyms; take it out of the name")
    classes = given_classes([f" {BAR} ".join(class_names) for class_names in content])
    names = set(classes.names)
    descriptions = {name: sentences for name, sentences in run_classes.descriptions.items() if name in names}
    return Classes(classes.names, classes.synonyms, descriptions)


class ClassesFile:
    """File that reviewed classes are written to. It must be new, and is later replaced only if it has not been changed.

    Args:
        folder: Output folder of the run. Without a path, the file is `classes-2.txt` in it, or the next free number.
        path: Path of a file that does not exist; None for the default.

    Raises:
        UserError: If the path exists.
    """

    def __init__(self, folder: Path, path: Path | None = None) -> None:
        self.folder, self.path, self.digest = folder, path, ""
        if path is not None and path.exists():
            raise UserError(f"--to {path}: already exists and was not overwritten; give another name")

    def write(self, classes: Classes) -> str:
        """Write classes to the file, or to a new one if the file has been changed since the last write.

        Args:
            classes: The classes.

        Returns:
            Notice about a file that had changed; else "".

        Raises:
            UserError: If the file cannot be written.
        """
        notice, path = "", self.path
        if self.digest and path is not None and _digest(path) != self.digest:
            notice = f"{path} has changed since you saved it; it was not overwritten."
            self.digest, path = "", None
        with writing((path or self.folder).parent if path else self.folder):
            if not self.digest:
                path = self._claim(path)
            assert path is not None
            try:
                write_classes(path, classes)
            except OSError:
                if not self.digest:
                    path.unlink(missing_ok=True)
                raise
        self.path, self.digest = path, _digest(path)
        return notice

    def _claim(self, path: Path | None) -> Path:
        """Create an empty file at the path, or under the first free name in the folder, and return its path."""
        candidates: Sequence[Path] = [path] if path else [self.folder / f"classes-{n}.txt" for n in range(2, 10_000)]
        for candidate in candidates:
            try:
                candidate.open("x").close()
                return candidate
            except FileExistsError:
                continue
        raise UserError(f"{candidates[0]}: already exists and was not overwritten; give another name by --to")


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(read_bytes(path, MAX_BYTES)).hexdigest()
    except OSError:
        return ""
