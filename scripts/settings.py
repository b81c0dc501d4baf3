"""All settings, as declared: `python scripts/settings.py [WORD]`, and a page of the site, by a hook of mkdocs."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from coft.core.settings import Key, flatten  # noqa: E402
from dassl.config import get_cfg_default  # noqa: E402
from trainers.sections import declared  # noqa: E402

HEAD = ["| key | default | values | what it does |", "| --- | --- | --- | --- |"]


def section_of(key: Key) -> str:
    """The section that a key is listed in: OPTIM, TRAINER.COFT; Root where it is in none."""
    parts = key.name.split(".")
    return ".".join(parts[:-1][: 2 if parts[0] == "TRAINER" else 1]) or "Root"


def cells(key: Key) -> list[str]:
    """What is said of a key: name, default, values, meaning."""
    return [key.name, repr(list(key.default) if key.is_list else key.default), key.expected, key.help]


def row(key: Key) -> str:
    """A key as a row of a table."""
    name, default, *rest = cells(key)
    return f"| {' | '.join([f'`{name}`', f'`{default}`', *rest])} |"


def page() -> str:
    """All settings as a page, a table a section."""
    tables = [
        "\n".join([f"## {section}", "", *HEAD, *map(row, keys)])
        for section, keys in itertools.groupby(declared().values(), section_of)
    ]
    others = [f"`{name}`" for name in flatten(get_cfg_default()) if name not in declared() and "TRAINER." not in name]
    about = "What they are, and how they override each other: [Running it](howto/running.md#settings)."
    unread = f"## Not read\n\nWhat no trainer here reads of Dassl is checked by type alone: {', '.join(others)}."
    return "\n\n".join(["# Settings", about, *tables, unread]) + "\n"


def matching(word: str, keys: Iterable[Key]) -> list[str]:
    """Lines of the settings that have a word in them, in any case."""
    lines = ["  ".join(cells(key)) for key in keys]
    return [line for line in lines if word.lower() in line.lower()]


def on_files(files: Any, config: Any) -> Any:
    """Add the page to the site's (called by mkdocs)."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "settings.md", content=page()))
    return files


if __name__ == "__main__":
    print("\n".join(matching(sys.argv[1] if len(sys.argv) > 1 else "", declared().values())))
