"""Names of two checkpoints: "a+b"."""

from __future__ import annotations

from coft.core.errors import UserError
from coft.core.paths import expanded

SEPARATOR = "+"


def member_names(name: str) -> list[str]:
    """The backbones that a name stands for: one, or two. A file's name may hold the separator.

    Raises:
        UserError: If there are more than two, or one is there twice, or has no name.
    """
    if SEPARATOR not in name or expanded(name).exists():
        return [name]
    names = [part.strip() for part in name.split(SEPARATOR)]
    if len(names) != 2 or len(set(names)) != 2 or not all(names):
        raise UserError(f"backbone {name}: peers have one checkpoint or two different ones; name two, such as a+b")
    return names
