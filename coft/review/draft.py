"""Class drafts that a page sends, and the file that they are written to."""

from __future__ import annotations

from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from coft.core.errors import UserError
from coft.core.files import writing
from coft.core.schemas import List, SchemaError, Text
from coft.engine.class_names import BAR, Classes, given_classes, write_classes

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


def write_new(folder: Path, classes: Classes) -> Path:
    """Write classes to a new file in a run's folder: `classes-2.txt`, or the next free number. Returns the file.

    Raises:
        UserError: If it cannot be written.
    """
    with writing(folder):
        for number in count(2):
            path = folder / f"classes-{number}.txt"
            with suppress(FileExistsError):
                path.open("x").close()
                break
        try:
            write_classes(path, classes)
        except OSError:
            path.unlink(missing_ok=True)
            raise
    return path
