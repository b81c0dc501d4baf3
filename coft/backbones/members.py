"""Backbone names that combine two checkpoints: "a+b"."""

from __future__ import annotations

from coft.core.errors import UserError
from coft.core.paths import expanded

SEPARATOR = "+"


def member_names(name: str) -> list[str]:
    """Split a backbone name into its one or two members. The name of an existing file is not split.

    Raises:
        UserError: If there are more than two members, or one is empty or repeated.
    """
    if SEPARATOR not in name or expanded(name).exists():
        return [name]
    names = [part.strip() for part in name.split(SEPARATOR)]
    if len(names) != 2 or len(set(names)) != 2 or not all(names):
        raise UserError(f"backbone {name}: peers have one checkpoint or two different ones; name two, such as a+b")
    return names
