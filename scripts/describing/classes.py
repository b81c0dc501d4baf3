"""The file of class names: one a line, after a tab what is meant."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from datasets.errors import UserError
from trainers.parts.descriptions import MAX_TOKENS, class_key, num_tokens
from trainers.parts.prompts import plain_name

LONGEST_NAME = MAX_TOKENS // 2  # tokens; a sentence has to say something beside the name
_WORDNET_ID = re.compile(r"^n\d{8}\s+")  # ImageNet's lists of names begin their lines with it


@dataclass(frozen=True)
class NamedClass:
    """A class that is to be described.

    Attributes:
        name: As the file has it.
        meaning: What is meant by the name, where that is not clear; empty if the file does not say.
    """

    name: str
    meaning: str = ""

    @property
    def plain(self) -> str:
        """The name as sentences write it."""
        return " ".join(plain_name(self.name).split())


def read_classes(path: Path) -> list[NamedClass]:
    """Read class names; a name that stands there twice is described once, empty lines are left out.

    Raises:
        UserError: If the file cannot be read, has no name, or has one that leaves no room for a sentence.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--classes {path}: cannot be read ({error}); expected a text file, one class a line"
        ) from error
    found: dict[str, NamedClass] = {}
    for number, line in enumerate(lines, start=1):
        name, _, meaning = (part.strip() for part in _WORDNET_ID.sub("", line).partition("\t"))
        if not name:
            continue
        if num_tokens(plain_name(name)) > LONGEST_NAME:
            raise UserError(f"--classes {path}, line {number}: {name[:60]!r}... is no class name; expected one a line")
        found.setdefault(class_key(name), NamedClass(name, meaning))
    if not found:
        raise UserError(f"--classes {path}: no class name in it; expected one a line")
    return list(found.values())
