"""List all declared settings: `python scripts/settings.py [WORD]`, and as a page of the site, by a mkdocs hook."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from coft.core.errors import Parser, UserError  # noqa: E402
from coft.core.exit_codes import guarded  # noqa: E402
from coft.core.settings import Key, flatten  # noqa: E402
from dassl.config import get_cfg_default  # noqa: E402
from trainers.sections import declared  # noqa: E402

HEAD = ["| key | default | values | what it does |", "| --- | --- | --- | --- |"]


def section_of(key: Key) -> str:
    """Return the section that a key is listed in, such as OPTIM or TRAINER.COFT; Root for a top-level key."""
    parts = key.name.split(".")
    return ".".join(parts[:-1][: 2 if parts[0] == "TRAINER" else 1]) or "Root"


def cells(key: Key) -> list[str]:
    """Return name, default, allowed values and meaning of a key."""
    return [key.name, repr(list(key.default) if key.is_list else key.default), key.expected, key.help]


def row(key: Key) -> str:
    """Format a key as a row of a Markdown table."""
    name, default, *rest = cells(key)
    return f"| {' | '.join([f'`{name}`', f'`{default}`', *rest])} |"


def page() -> str:
    """Return all settings as a Markdown page with one table per section."""
    tables = [
        "\n".join([f"## {section}", "", *HEAD, *map(row, keys)])
        for section, keys in itertools.groupby(declared().values(), section_of)
    ]
    others = [f"`{name}`" for name in flatten(get_cfg_default()) if name not in declared() and "TRAINER." not in name]
    about = "What they are, and how they override each other: [Running it](howto/running.md#settings)."
    unread = f"## Not read\n\nWhat no trainer here reads of Dassl is checked by type alone: {', '.join(others)}."
    return "\n\n".join(["# Settings", about, *tables, unread]) + "\n"


def main(argv: Sequence[str]) -> int:
    """Print the settings, one per line: name, default, values, meaning. With a word, only lines that contain it.

    Raises:
        UserError: If no line contains the word.
    """
    parser = Parser(prog="scripts/settings.py", description="List the settings of a run and of all trainers.")
    parser.add_argument(
        "word", nargs="?", default="", metavar="WORD", help="list only settings whose line contains this word"
    )
    word = parser.parse_args(argv).word
    lines = ["  ".join(cells(key)) for key in declared().values()]
    if not (matching := [line for line in lines if word.lower() in line.lower()]):
        raise UserError(f"no setting matches {word!r}; without a word all are listed")
    print("\n".join(matching))
    return 0


def on_files(files: Any, config: Any) -> Any:
    """Add the page of settings to the site; mkdocs calls this hook."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "settings.md", content=page()))
    return files


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
