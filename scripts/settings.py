"""Write the tables of docs/settings.md from the declarations: `python scripts/settings.py`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from coft.core.files import replacing  # noqa: E402
from coft.core.settings import rows  # noqa: E402
from trainers.sections import declared  # noqa: E402

PAGE = ROOT / "docs" / "settings.md"
BEGIN, END = "<!-- begin: written by scripts/settings.py -->", "<!-- end -->"


def table(section: str, cls: type) -> str:
    """Heading and table of a section."""
    lines = [f"## {section or 'Root'}", "", cls.__doc__ or "", ""]
    lines += ["| key | default | values | what it does |", "| --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(_cell(text) for text in _row(*row))} |" for row in rows(cls, section)]
    return "\n".join(lines)


def _row(key: str, default: str, expected: str, help: str) -> tuple[str, ...]:
    return f"`{key}`", f"`{default}`", expected, help


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def page(text: str) -> str:
    """The page with its tables as they ought to be.

    Args:
        text: The page as it is.
    """
    before, _, rest = text.partition(BEGIN)
    tables = "\n\n".join(table(section, cls) for section, cls in declared().items())
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Write the page anew."""
    text = page(PAGE.read_text(encoding="utf-8"))
    with replacing(PAGE) as draft:
        draft.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
