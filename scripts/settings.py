"""Write the tables of docs/settings.md from the declarations: `python scripts/settings.py`."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from coft.core.files import replacing  # noqa: E402
from coft.core.settings import Key, flatten  # noqa: E402
from dassl.config import get_cfg_default  # noqa: E402
from trainers.sections import declared  # noqa: E402

PAGE = ROOT / "docs" / "settings.md"
BEGIN, END = "<!-- begin: written by scripts/settings.py -->", "<!-- end -->"
HEAD = ["| key | default | values | what it does |", "| --- | --- | --- | --- |"]


def section_of(key: Key) -> str:
    """The section that a key is listed in: OPTIM, TRAINER.COFT; Root where it is in none."""
    parts = key.name.split(".")
    return ".".join(parts[:-1][: 2 if parts[0] == "TRAINER" else 1]) or "Root"


def row(key: Key) -> str:
    """A key as a row of a table."""
    default = repr(list(key.default) if key.is_list else key.default)
    return f"| `{key.name}` | `{default}` | {key.expected} | {key.help} |"


def page(text: str) -> str:
    """The page with its tables as they ought to be.

    Args:
        text: The page as it is.
    """
    before, _, rest = text.partition(BEGIN)
    parts = [before + BEGIN]
    for section, keys in itertools.groupby(declared().values(), section_of):
        parts.append("\n".join([f"## {section}", "", *HEAD, *map(row, keys)]))
    others = [f"`{name}`" for name in flatten(get_cfg_default()) if name not in declared() and "TRAINER." not in name]
    parts.append(f"## Not read\n\nWhat no trainer here reads of Dassl is checked by type alone: {', '.join(others)}.")
    return "\n\n".join([*parts, END + rest.partition(END)[2]])


def main() -> None:
    """Write the page anew."""
    text = page(PAGE.read_text(encoding="utf-8"))
    with replacing(PAGE) as draft:
        draft.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
