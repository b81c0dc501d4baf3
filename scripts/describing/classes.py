"""The classes that are to be described, from what the folder command reads them from."""

from __future__ import annotations

import re
from dataclasses import dataclass

from coft.backbones.descriptions import MAX_TOKENS, class_key, num_tokens
from coft.backbones.prompts import plain_name
from coft.core.errors import UserError
from coft.engine.class_names import is_file, read_classes
from scripts.paths import called_from

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


def named_classes(text: str) -> list[NamedClass]:
    """Read class names; those that differ in case, underscores or blanks alone are described once.

    Args:
        text: Names with commas between them, or a file of names, with what is meant after a tab.

    Raises:
        UserError: If there is no such file, it has no name, or one that leaves no room for a sentence.
    """
    path = called_from(text)
    found: dict[str, NamedClass] = {}
    given = read_classes(text if "," in text and not is_file(path) else str(path))
    for line in given.names:
        name = _WORDNET_ID.sub("", line)
        if num_tokens(plain_name(name)) > LONGEST_NAME:
            raise UserError(f"--classes: {name[:60]!r}... is no class name; write one on each line")
        found.setdefault(class_key(name), NamedClass(name, " ".join(given.descriptions.get(line, [])).rstrip(".")))
    return list(found.values())
