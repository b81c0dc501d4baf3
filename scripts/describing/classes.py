"""Read the classes to describe, in the format of the classes of a run on a user's own images."""

from __future__ import annotations

import re
from dataclasses import dataclass

from coft.backbones.descriptions import MAX_TOKENS, class_key, num_tokens
from coft.backbones.prompts import plain_name
from coft.core.errors import UserError
from coft.engine.class_names import is_file, read_classes
from scripts.paths import called_from

MAX_NAME_LENGTH = MAX_TOKENS // 2  # largest number of tokens of a name; the rest is left for the sentence
_WORDNET_ID = re.compile(r"^n\d{8}\s+")  # start of a line in lists of ImageNet's classes


@dataclass(frozen=True)
class NamedClass:
    """A class to describe.

    Attributes:
        name: Name as written in the file.
        meaning: Meaning of an ambiguous name; empty if the file has none.
    """

    name: str
    meaning: str = ""

    @property
    def plain(self) -> str:
        """Name as used in sentences."""
        return " ".join(plain_name(self.name).split())


def named_classes(text: str) -> list[NamedClass]:
    """Read the classes to describe. Names that differ only in case, underscores or blanks are one class.

    Args:
        text: Comma-separated names, or the path of a file with one name per line, its meaning after a tab.

    Raises:
        UserError: If there is no such file, it has no names, or a name leaves no room for a sentence.
    """
    path = called_from(text)
    classes: dict[str, NamedClass] = {}
    listed = read_classes(text if "," in text and not is_file(path) else str(path))
    for line in listed.names:
        name = _WORDNET_ID.sub("", line)
        if num_tokens(plain_name(name)) > MAX_NAME_LENGTH:
            raise UserError(f"--classes: {name[:60]!r}... is no class name; write one on each line")
        classes.setdefault(class_key(name), NamedClass(name, " ".join(listed.descriptions.get(line, [])).rstrip(".")))
    return list(classes.values())
